"""Byte streams whose size is counted, and gzip data that is unpacked within a limit."""

from __future__ import annotations

import zlib
from typing import Protocol

from caslie_ray.dataset._limits import Ratio

__all__ = ["ByteStream", "Counted", "Gunzip"]

_PACKED = 1 << 16


class ByteStream(Protocol):
    """What is needed of a stream: pyarrow's and Python's both have it."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""
        ...


class Counted:
    """Counts the bytes that are read of a stream as the size of its file."""

    def __init__(self, stream: ByteStream, ratio: Ratio) -> None:
        self._stream = stream
        self._ratio = ratio

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""
        data = self._stream.read(size)
        self._ratio.size += len(data)
        return data


class Gunzip:
    """Unpacks a gzip stream; of one that is cut short or damaged, what came before is returned first.

    Args:
        stream: the gzip data.
        ratio: compares what is unpacked with what `stream` has read.
    """

    def __init__(self, stream: ByteStream, ratio: Ratio) -> None:
        self._stream = stream
        self._ratio = ratio
        self._unpacked = 0
        self._member = zlib.decompressobj(wbits=31)
        self._left = b""
        self._between = False

    def read(self, size: int, /) -> bytes:
        """Return up to `size` unpacked bytes; none at the end.

        Raises:
            OSError: the stream is damaged or lacks its end.
            OverLimit: it unpacks to too many times its size.
        """
        while True:
            self._left = self._left or self._stream.read(_PACKED)
            if not self._left:
                if self._between:
                    return b""
                raise OSError("the gzip data has no end")
            if self._between:
                self._member = zlib.decompressobj(wbits=31)
            try:
                data = self._member.decompress(self._left, size)
            except zlib.error as error:
                raise OSError(f"the gzip data is damaged ({error})") from None
            self._between = self._member.eof
            self._left = self._member.unused_data.lstrip(b"\0") if self._between else self._member.unconsumed_tail
            if data:
                self._unpacked += len(data)
                self._ratio.check(self._unpacked)
                return data
