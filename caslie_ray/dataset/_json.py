"""Rows of JSON text, read as a stream: an array, values one after the other, or an object a line.

The standard library's decoder is run over a moving buffer, which holds a few rows at a time. It takes the
NaN that Python and pandas write, and where a row is damaged the reading goes on at the next one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from caslie_ray.dataset._text import TextStream

__all__ = ["Damage", "read_lines", "read_values"]

LONGEST_ROW = 64 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_LITERAL = 16


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of a file that holds no row; `reason` says why."""

    reason: str


def _parsed(text: str) -> object:
    try:
        return json.loads(text, strict=False)
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        return Damage(f"invalid JSON: {what} at character {error.pos + 1}; write this row again")
    except (ValueError, RecursionError) as error:
        return Damage(f"invalid JSON: {_odd(error)}")


def _odd(error: ValueError | RecursionError) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]


def read_lines(text: TextStream) -> Iterator[tuple[int, object]]:
    """Yield the number and the value, or `Damage`, of each line that is not blank."""
    number = 0
    tail: list[str] = []
    held = 0
    while piece := text.more():
        first, *rest = piece.split("\n")
        tail.append(first[: max(0, LONGEST_ROW + 1 - held)])
        held += len(first)
        for line in rest:
            number += 1
            yield from _line(number, tail, held)
            tail, held = [line], len(line)
    if not text.broken:
        yield from _line(number + 1, tail, held)
    else:
        for _, value in _line(number + 1, tail, held):
            if not isinstance(value, Damage):
                yield number + 1, value
        yield number + 1, Damage(f"broken file: it ends early: {text.broken}; copy it again")


def _line(number: int, parts: list[str], length: int) -> Iterator[tuple[int, object]]:
    if length > LONGEST_ROW:
        yield number, _too_long()
        return
    line = "".join(parts)
    if line and not line.isspace():
        yield number, _parsed(line)


def _too_long() -> Damage:
    return Damage(f"row too long: more than {LONGEST_ROW:,} characters; is this file JSON Lines or a JSON array?")


class _Buffer:
    """A moving window over a text, and the place in it where reading stands."""

    def __init__(self, text: TextStream) -> None:
        self._text = text
        self.data = ""
        self.at = 0
        self.ended = False

    def grow(self) -> bool:
        """Drop what was read and append more; False at the end of the text."""
        if self.ended:
            return False
        piece = self._text.more()
        self.ended = not piece
        self.data = self.data[self.at :] + piece
        self.at = 0
        return not self.ended

    def peek(self) -> str:
        """Skip white space and return the next character; ``""`` at the end."""
        while True:
            match = _SPACE.match(self.data, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.data):
                return self.data[self.at]
            if not self.grow():
                return ""

    def value(self) -> tuple[object, int]:
        """Return the value that starts here and where it ends; `Damage` and where it was noticed."""
        decoder = json.JSONDecoder(strict=False)
        while True:
            try:
                value, end = decoder.raw_decode(self.data, self.at)
                cut = end == len(self.data)
            except json.JSONDecodeError as error:
                end = error.pos
                cut = error.msg.startswith("Unterminated") or end >= len(self.data) - _LITERAL
                value = Damage(f"invalid JSON: {error.msg.removesuffix(' at')}; write this row again")
            except (ValueError, RecursionError) as error:
                cut, end = False, self.at + 1
                value = Damage(f"invalid JSON: {_odd(error)}")
            if not cut or self.ended:
                if isinstance(value, Damage) and cut:
                    value = Damage(
                        "truncated file: it ends inside this row; the rows before it are kept, copy it again"
                    )
                return value, end
            if len(self.data) - self.at > LONGEST_ROW:
                return _too_long(), end
            held = len(self.data) - self.at
            while self.grow() and len(self.data) < 2 * held:
                pass


def read_values(text: TextStream, in_array: bool, is_row: Callable[[object], bool]) -> Iterator[tuple[int, object]]:
    """Yield the number, from 1, and the value of each element; `Damage` where there is none.

    Args:
        text: the file.
        in_array: whether the values stand in an array, or bare one after the other.
        is_row: tells a row from a value inside a row; by it the next row is found after a damaged one.
    """
    buffer = _Buffer(text)
    number = 1
    if in_array:
        buffer.peek()
        buffer.at += 1
    while mark := buffer.peek():
        if mark == ",":
            buffer.at += 1
            continue
        if mark == "]" and in_array:
            buffer.at += 1
            if buffer.peek():
                yield number, Damage("text after the array: it was not read; one file holds one array")
            return
        value, end = buffer.value()
        yield number, value
        number += 1
        if not isinstance(value, Damage):
            buffer.at = end
        elif not _skip_to_row(buffer, end, is_row):
            return
    if text.broken:
        yield number, Damage(f"broken file: it ends early: {text.broken}; copy it again")
    elif in_array:
        yield number, Damage("truncated file: the array has no end, so rows may be missing; copy it again")


def _skip_to_row(buffer: _Buffer, noticed: int, is_row: Callable[[object], bool]) -> bool:
    """Move to the next row after a damaged one; False where none follows."""
    # A row that lacks its closing brace is noticed inside the next one.
    start = max(noticed - 64, buffer.at + 1)
    while True:
        start = buffer.data.find("{", start)
        if start < 0:
            buffer.at = len(buffer.data)
            if not buffer.grow():
                return False
            start = 0
            continue
        buffer.at = start
        value, _ = buffer.value()
        if is_row(value):
            return True
        start = buffer.at + 1
