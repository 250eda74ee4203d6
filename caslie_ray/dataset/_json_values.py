"""Rows of JSON text, read as a stream: arrays, values one after the other, and rows below keys.

A few rows at a time are in memory. Where a row is damaged, reading continues at the next one.
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Iterator

from caslie_ray.dataset._json_buffer import Buffer, Hopeless, SkippedValue, parse_json, skip_to_row, too_long
from caslie_ray.dataset._json_scan import too_many_values
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._shapes import BELOW, DEPTH, FIRST, IN_COLUMNS, Damage, Found, Shapes
from caslie_ray.dataset._text_stream import TextStream, Undecodable

__all__ = ["read_values"]


class _End(enum.Enum):
    """How a list or an object ended, if it is not returned as a value."""

    ENTERED = enum.auto()
    """Its rows were yielded."""
    LOST = enum.auto()
    """It is damaged: the buffer is at the next row, or at the end of the text."""


def read_values(text: TextStream, shapes: Shapes, limits: Limits) -> Iterator[Found]:
    """Yield the rows of consecutive arrays and objects; `Damage` where there is none.

    A row that fits into the buffer is parsed as one value. Any other object is entered: the rows in its lists are
    yielded one by one, whatever its size, and its other members are skipped.
    """
    return _Reader(text, shapes, limits).read()


class _Reader:
    """Reads one text.

    A method that enters a list or an object yields its rows, and returns its value where it holds none.
    """

    def __init__(self, text: TextStream, shapes: Shapes, limits: Limits) -> None:
        self._text = text
        self._shapes = shapes
        self._limits = limits
        self._buffer = Buffer(text, limits)
        self._number = 0
        self._values = 0  # of lists and objects that are in memory until they end
        self._over = False  # a damaged row has no row after it

    def read(self) -> Iterator[Found]:
        buffer = self._buffer
        after_array = lost = False
        split: str | None = None
        while mark := buffer.peek():
            if mark == "," or (lost and mark in "]}:"):
                buffer.at += 1
            elif mark == "[":
                after_array = True
                end = yield from self._list(split, None, entered=True)
                lost = lost or end is _End.LOST
            elif mark == "{":
                whole = buffer.whole()
                # All others are entered, so that large and small files are read in the same way.
                simple = whole is not None and self._shapes.is_row(whole[0])
                if whole is not None and simple and not self._text.is_damaged(buffer.data, buffer.at, whole[1]):
                    yield from self._take(*whole, split)
                else:
                    self._values = 0
                    value = yield from self._object(split, 0)
                    lost = lost or value is _End.LOST
            elif after_array and not lost:
                yield self._damage("text after the array: it was not read; one file holds one array")
                return
            else:
                value, end_at = buffer.value()
                if isinstance(value, str) and lost:  # a key between two lists of a damaged object
                    split = self._shapes.split(value, None)
                    buffer.at = end_at
                elif isinstance(value, Damage) and not isinstance(value, SkippedValue):
                    yield from self._lose(value, end_at)
                    lost = True
                else:
                    yield from self._take(value, end_at, split)
        if self._text.broken and not self._over:
            yield self._damage(f"broken file: it ends early: {self._text.broken}; copy it again")

    def _damage(self, reason: str, *, limited: bool = False) -> Found:
        self._number += 1
        return Found(self._number, Damage(reason, limited))

    def _emit(self, found: Iterator[Found]) -> Iterator[Found]:
        for row in found:
            self._number += 1
            yield row._replace(number=self._number)

    def _decoded(self, value: object, end: int) -> tuple[object, tuple[str, ...]]:
        """Return the value that ends there with its letters repaired, and the encoding that they were in."""
        buffer = self._buffer
        if not self._text.is_damaged(buffer.data, buffer.at, end):
            return value, ()
        try:
            text, name = self._text.repaired(buffer.data[buffer.at : end])
        except Undecodable as error:
            return Damage(str(error)), ()
        return parse_json(text), (name,)

    def _take(
        self, value: object, end: int, split: str | None, header: list[str] | None = None, notes: tuple[str, ...] = ()
    ) -> Iterator[Found]:
        """Yield the rows of the value that was read here, and move past it."""
        value, encoding = self._decoded(value, end)
        self._buffer.at = end
        if header is not None:
            value, notes = self._shapes.with_header(header, value), (*notes, IN_COLUMNS)
        for found in self._emit(self._shapes.expand(value, split, encoding)):
            yield found._replace(notes=tuple(dict.fromkeys((*notes, *found.notes))))

    def _lose(self, damage: Damage, noticed: int) -> Generator[Found, None, str | None]:
        """Yield a damage and move to the next row; return the key of the list that it begins, if it begins one."""
        yield self._damage(damage.reason, limited=damage.limited)
        try:
            key = skip_to_row(self._buffer, noticed, self._shapes.is_row)
        except Hopeless:
            yield self._damage("broken file: too much of it is damaged to find the next row; write it again")
            self._buffer.stop()
            key = None
        self._over = not self._buffer.peek()
        return key

    def _hold(self, start: int, end: int, mark: str) -> bool:
        """Count a value that stays in memory until its container ends; False if there are too many."""
        data = self._buffer.data
        self._values += 1
        if mark in "[{":
            self._values += sum(data.count(one, start, end) for one in "[{,")
        return self._values <= self._limits.row_values

    def _list(
        self, split: str | None, outer: str | None, header: list[str] | None = None, *, entered: bool = False
    ) -> Generator[Found, None, object]:
        """Read the list that starts here.

        Args:
            split: the split of its rows.
            outer: the split of the lists next to it.
            header: the names of the columns of rows that are lists of cells.
            entered: whether its elements are rows, whatever they look like.
        """
        buffer, shapes = self._buffer, self._shapes
        notes = () if entered else (BELOW,)
        first: list[object] = []
        encodings: list[tuple[str, ...]] = []  # of the first elements only: no later one makes this a list of rows
        start, held = buffer.position, self._values
        over: Damage | None = None
        buffer.at += 1
        while mark := buffer.peek():
            if mark == ",":
                buffer.at += 1
                continue
            if mark == "]":
                buffer.at += 1
                if entered:
                    return _End.ENTERED
                return over or next((one for one in first if isinstance(one, Damage)), first)
            value, end = buffer.value()
            if isinstance(value, Damage) and not isinstance(value, SkippedValue):
                key = yield from self._lose(value, end)
                if not entered or self._over:
                    return _End.LOST
                split = split if key is None else shapes.split(key, outer)
            elif entered:
                yield from self._take(value, end, split, header, notes)
            elif header is not None or (len(first) < FIRST and shapes.holds_rows(value)):
                entered = True
                for one, encoding in zip(first, encodings, strict=True):
                    yield from self._emit(found._replace(notes=notes) for found in shapes.expand(one, split, encoding))
                first = []
                self._values = held
                yield from self._take(value, end, split, header, notes)
            else:
                if over is None:
                    if not self._hold(buffer.at, end, mark):
                        over = too_many_values(self._limits)
                    value, encoding = self._decoded(value, end)
                    first.append(value)
                    if len(encodings) < FIRST:
                        encodings.append(encoding)
                buffer.at = end
                if buffer.position - start > self._limits.row_bytes:
                    over = too_long(self._limits)
                if over is not None:
                    first, encodings = [], []
        if not self._text.broken:
            yield self._damage("truncated file: the array has no end, so rows may be missing; copy it again")
        return _End.LOST

    def _object(self, split: str | None, depth: int) -> Generator[Found, None, object]:
        """Read the object that starts here, at this depth of keys, member by member."""
        buffer, shapes = self._buffer, self._shapes
        members: dict[str, object] = {}
        notes: tuple[str, ...] = ()
        start, held = buffer.position, self._values
        entered = is_row = False
        over: Damage | None = None
        buffer.at += 1
        while mark := buffer.peek():
            if mark == ",":
                buffer.at += 1
                continue
            if mark == "}":
                buffer.at += 1
                break
            key, end = buffer.value()
            if not isinstance(key, str):
                damage = key if isinstance(key, Damage) else Damage("invalid JSON: a key is no text; write it again")
                yield from self._lose(damage, end)
                return _End.LOST
            key = str(self._decoded(key, end)[0])
            buffer.at = end
            if buffer.peek() != ":":
                yield from self._lose(Damage("invalid JSON: Expecting ':' delimiter; write this row again"), buffer.at)
                return _End.LOST
            buffer.at += 1
            mark = buffer.peek()
            # An object inside a row is no row, whatever its keys.
            column = mark not in "[{" or is_row or shapes.is_column(key)
            if mark == "[" and not column:
                header = shapes.header(members) if key.lower() == "data" else None
                value = yield from self._list(shapes.split(key, split), split, header)
            elif mark == "{" and not column and depth < DEPTH:
                value = yield from self._object(shapes.split(key, split), depth + 1)
            else:
                value, end = buffer.value()
                if isinstance(value, SkippedValue):
                    over = over or value
                    if shapes.holds_columns({**members, key: [] if mark == "[" else {}}):
                        yield from self._columns_too_long()
                        return _End.LOST
                elif isinstance(value, Damage):
                    yield from self._lose(value, end)
                    return _End.LOST
                else:
                    if not self._hold(buffer.at, end, mark):
                        over = over or too_many_values(self._limits)
                    value, encoding = self._decoded(value, end)
                    notes = tuple(dict.fromkeys((*notes, *encoding)))
                buffer.at = end
            if value is _End.LOST:
                return value
            entered = entered or value is _End.ENTERED
            if not isinstance(value, _End):
                if isinstance(value, Damage) and value.limited:
                    over = over or value
                elif over is None:
                    members[key] = value
                is_row = is_row or shapes.names_task(key)
                if buffer.position - start > self._limits.row_bytes and not entered:
                    over = over or too_long(self._limits)
                if over is not None:
                    if shapes.holds_columns(members) and not entered:
                        yield from self._columns_too_long()
                        return _End.LOST
                    members = {}
        else:
            if not self._text.broken:
                yield self._damage(
                    "truncated file: it ends inside this row; the rows before it are kept, copy it again"
                )
            return _End.LOST
        if entered:
            self._values = held
            if isinstance(over, SkippedValue):
                yield self._damage(over.reason, limited=over.limited)
            return _End.ENTERED
        if over is not None:
            if depth:
                return over
            yield self._damage(over.reason, limited=over.limited)
            return _End.ENTERED
        undecodable = next((value for value in members.values() if isinstance(value, Damage)), None)
        if not depth:
            value = undecodable or members
            self._values = held
            yield from self._emit(shapes.expand(value, split, notes))
            return _End.ENTERED
        found = list(shapes.rows(members, split, depth))
        if not found:
            return undecodable or members
        rows = [Found(0, undecodable, split)] if undecodable else found
        self._values = held
        yield from self._emit(row._replace(notes=(*notes, *row.notes)) for row in rows)
        return _End.ENTERED

    def _columns_too_long(self) -> Iterator[Found]:
        """Yield why a table in columns cannot be read, and stop: the rest of the text is part of it."""
        yield self._damage(
            f"columns too long: a table in columns is read as a whole, up to {self._limits.row_bytes:,} characters and"
            f" {self._limits.row_values:,} values; write one object per row, as JSON Lines, or raise"
            " ingest.max_row_bytes or ingest.max_row_values",
            limited=True,
        )
        self._buffer.stop()
