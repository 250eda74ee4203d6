"""Reads Thrift's compact protocol as Parquet headers use it: structs become dicts of field number to value."""

from __future__ import annotations

from typing import Any

__all__ = ["Thrift", "ThriftError"]

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_DEPTH = 16


class ThriftError(ValueError):
    """The bytes are no header, or end too early."""


class Thrift:
    """Reads values one after the other.

    Attributes:
        at: offset of the next byte.

    Raises:
        ThriftError: from every method.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def varint(self) -> int:
        """Return an unsigned integer."""
        value = shift = 0
        while shift < 70:
            byte = self._take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise ThriftError("an integer of more than 64 bits")

    def integer(self) -> int:
        """Return a signed integer."""
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def field(self, last: int) -> tuple[int, int] | None:
        """Return the number and type of a struct's next field; None at its end."""
        head = self._take(1)[0]
        if head == 0:
            return None
        return (last + (head >> 4) if head >> 4 else self.integer()), head & 15

    def size(self) -> tuple[int, int]:
        """Return the length of a list and the type of its elements."""
        head = self._take(1)[0]
        count = head >> 4
        return (self.varint() if count == 15 else count), head & 15

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Return a struct."""
        fields: dict[int, Any] = {}
        number = 0
        while (found := self.field(number)) is not None:
            number, kind = found
            fields[number] = self.value(kind, depth + 1)
        return fields

    def value(self, kind: int, depth: int = 0) -> Any:
        """Return a value of a type; lists and maps of which nothing is needed are skipped and None."""
        if depth > _DEPTH:
            raise ThriftError("nested too deeply")
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind == _BYTE:
            return self._take(1)[0]
        if kind in (_I16, _I32, _I64):
            return self.integer()
        if kind == _DOUBLE:
            return self._take(8)
        if kind == _BINARY:
            return self._take(self.varint())
        if kind == _STRUCT:
            return self.struct(depth)
        if kind in (_LIST, _SET):
            count, element = self.size()
            for _ in range(count):
                # Each element of a list has a byte, booleans too.
                self._take(1) if element in (_TRUE, _FALSE) else self.value(element, depth + 1)
            return None
        if kind == _MAP:
            count = self.varint()
            kinds = self._take(1)[0] if count else 0
            for _ in range(count):
                self.value(kinds >> 4, depth + 1)
                self.value(kinds & 15, depth + 1)
            return None
        raise ThriftError(f"no type {kind}")

    def _take(self, size: int) -> bytes:
        if self.at + size > len(self._data):
            raise ThriftError("it ends too early")
        data = self._data[self.at : self.at + size]
        self.at += size
        return data
