"""Rows of JSON text, read as a stream: arrays, values one after the other, rows below keys, or an object a line.

The standard library's decoder is run over a moving buffer, which holds a few rows at a time. It takes the
NaN that Python and pandas write, and where a row is damaged the reading goes on at the next one.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass

from caslie_ray.dataset import _text
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._scan import Scan, excess, too_many_values, too_nested
from caslie_ray.dataset._shapes import BELOW, DEPTH, FIRST, IN_COLUMNS, Damage, Found, Shapes
from caslie_ray.dataset._text import TextStream, Undecodable

__all__ = ["read_lines", "read_values"]

_BLANK = " \t\r\n\ufeff"
# A byte order mark stands between values where files were put together.
_SPACE = re.compile(f"[{_BLANK}]*")
_LITERAL = 16
_KEY = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:\s*\[\s*$')
_KEY_LENGTH = 200
_CONTEXT = _KEY_LENGTH  # characters before the position that a buffer keeps
_LOOK_AHEAD = 8  # pieces of text in which an object is looked at before it is entered
_STEP = 16 << 10  # characters that are read at a time in a damaged file
_RECOVERY = 16 << 20  # characters that may be parsed in vain, besides those in proportion to the text
_RECOVERY_SHARE = 4
_ATTEMPT = 64  # characters that an attempt to parse counts as, at least
_DECODER = json.JSONDecoder(strict=False)


@dataclass(frozen=True, slots=True)
class _Skipped(Damage):
    """A value that is over a limit; the buffer is after its end."""


class _End(enum.Enum):
    """What became of a list or an object, where it is not returned as a value."""

    ENTERED = enum.auto()
    """Its rows were yielded."""
    LOST = enum.auto()
    """It is damaged: the buffer is at the next row, or at the end of the text."""


class _Hopeless(Exception):
    """No row was found in reasonable time."""


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


def read_lines(text: TextStream, shapes: Shapes, limits: Limits) -> Iterator[Found]:
    """Yield the rows, or `Damage`, of each line that is not blank, numbered by their line."""
    number = 0
    tail: list[str] = []
    held = 0
    while piece := text.more():
        first, *rest = piece.split("\n")
        if held <= limits.row_bytes:
            tail.append(first)
        held += len(first)
        for line in rest:
            number += 1
            yield from _line(text, shapes, limits, number, tail, held)
            tail, held = [line], len(line)
    last = _line(text, shapes, limits, number + 1, tail, held)
    if text.broken:
        yield from (found for found in last if not isinstance(found.value, Damage))
        yield Found(number + 1, Damage(f"broken file: it ends early: {text.broken}; copy it again"))
    else:
        yield from last


def _line(
    text: TextStream, shapes: Shapes, limits: Limits, number: int, parts: list[str], length: int
) -> Iterator[Found]:
    if length > limits.row_bytes:
        yield Found(number, _too_long(limits))
        return
    line = "".join(parts).strip(_BLANK)
    if not line or line.isspace():
        return
    if (over := excess(line, 0, len(line), limits)) is not None:
        yield Found(number, over)
        return
    notes: tuple[str, ...] = ()
    if text.is_damaged(line):
        try:
            line, name = text.repaired(line)
        except Undecodable as error:
            yield Found(number, Damage(str(error)))
            return
        notes = (name,)
    for value in _values_of(line):
        for found in shapes.expand(value, notes=notes):
            yield found._replace(number=number)


def _values_of(line: str) -> list[object]:
    """Return the value of a line; several where lines lost the break between them."""
    value = _parsed(line)
    if not (isinstance(value, Damage) and "Extra data" in value.reason):
        return [value]
    values: list[object] = []
    at = 0
    while at < len(line):
        try:
            one, at = _DECODER.raw_decode(line, at)
        except (ValueError, RecursionError):
            return [value]
        if not isinstance(one, Mapping):
            return [value]
        values.append(one)
        match = _SPACE.match(line, at)
        at = match.end() if match else at
    return values


def _too_long(limits: Limits) -> Damage:
    return Damage(
        f"row too long: more than {limits.row_bytes:,} characters; is this file JSON Lines or a JSON array?"
        " For a row of this size raise ingest.max_row_bytes",
        limited=True,
    )


class _Buffer:
    """A moving window over a text, and the position in it."""

    def __init__(self, text: TextStream, limits: Limits) -> None:
        self._text = text
        self._limits = limits
        self._dropped = 0
        self._ahead = ""  # text after the window that was read already, from `_next` on
        self._next = 0
        self._spent = 0
        self.data = ""
        self.at = 0
        self.ended = False

    @property
    def position(self) -> int:
        """Characters of the text that were read."""
        return self._dropped + self.at

    def grow(self, least: int = 1) -> bool:
        """Drop what was read and append that many characters, if there are so many; False at the end of the text."""
        if self.ended:
            return False
        dropped = max(0, self.at - _CONTEXT)
        pieces = [self.data[dropped:]]
        appended = 0
        while appended < least and not self.ended:
            pieces.append(self._more())
            appended += len(pieces[-1])
            self.ended = not pieces[-1]
        self._dropped += dropped
        self.data = "".join(pieces)
        self.at -= dropped
        return appended > 0

    def _more(self) -> str:
        if self._next < len(self._ahead):
            piece = self._ahead[self._next : self._next + _STEP]
            self._next += len(piece)
            return piece
        self._ahead, self._next = "", 0
        piece = self._text.more()
        if self._spent and len(piece) > _STEP:
            self._ahead, self._next = piece, _STEP
            return piece[:_STEP]
        return piece

    def take_small_steps(self) -> None:
        """Keep less text from here on: an error of the JSON decoder takes time in proportion to its offset."""
        self._spent = max(self._spent, 1)
        if len(self.data) > 2 * _STEP and not self.ended:
            dropped = max(0, self.at - _CONTEXT)
            kept = self.at + _STEP
            self._ahead, self._next = self.data[kept:] + self._ahead[self._next :], 0
            self.data = self.data[dropped:kept]
            self._dropped += dropped
            self.at -= dropped

    def spend(self, characters: int) -> bool:
        """Count characters that were parsed in vain; False once they are out of proportion to the text."""
        self._spent += characters
        return self._spent < _RECOVERY + _RECOVERY_SHARE * self.position

    def stop(self) -> None:
        """Read no more of the text."""
        self.ended = True
        self.data, self.at = "", 0

    def peek(self) -> str:
        """Skip white space and return the next character; ``""`` at the end."""
        while True:
            match = _SPACE.match(self.data, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.data):
                return self.data[self.at]
            if not self.grow():
                return ""

    def whole(self) -> tuple[object, int] | None:
        """Return the object that starts here and where it ends, if it lies within a few pieces of the text."""
        while True:
            length = len(self.data) - self.at
            try:
                value, end = _DECODER.raw_decode(self.data, self.at)
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos >= len(self.data) - _LITERAL
                if not cut or length >= _LOOK_AHEAD * _text.PIECE:
                    return None
            except (ValueError, RecursionError):
                return None
            else:
                return self._within_limits(value, end)
            if excess(self.data, self.at, len(self.data), self._limits) is not None or not self.grow(length):
                return None

    def value(self) -> tuple[object, int]:
        """Return the value that starts here and where it ends; `Damage` and where it was noticed."""
        limits = self._limits
        while True:
            try:
                value, end = _DECODER.raw_decode(self.data, self.at)
                cut = end == len(self.data)
            except json.JSONDecodeError as error:
                end = error.pos
                cut = error.msg.startswith("Unterminated") or end >= len(self.data) - _LITERAL
                value = Damage(f"invalid JSON: {error.msg.removesuffix(' at')}; write this row again")
            except RecursionError:
                return self._skipped(too_nested(limits))
            except ValueError as error:  # a number with too many digits
                return self._skipped(Damage(f"invalid JSON: {_odd(error)}"))
            if not cut or self.ended:
                if not isinstance(value, Damage):
                    return self._within_limits(value, end)
                if cut:
                    value = Damage(
                        "truncated file: it ends inside this row; the rows before it are kept, copy it again"
                    )
                return value, end
            length = len(self.data) - self.at
            if length > limits.row_bytes:
                return self._skipped(_too_long(limits))
            # All text in memory belongs to the value. Parsed, it may take many times its length.
            if (over := excess(self.data, self.at, len(self.data), limits)) is not None:
                return self._skipped(over)
            self.grow(min(length, limits.row_bytes + 1 - length) or 1)

    def _within_limits(self, value: object, end: int) -> tuple[object, int]:
        at, limits = self.at, self._limits
        # Most values are so small that the limits cannot be reached.
        opened = self.data.count("{", at, end) + self.data.count("[", at, end)
        if opened <= limits.nesting and end - at <= min(limits.row_values, limits.row_bytes):
            return value, end
        if end - at > limits.row_bytes:
            over: Damage | None = _too_long(limits)
        else:
            over = excess(self.data, self.at, end, self._limits)
        return (value if over is None else _Skipped(over.reason, over.limited)), end

    def _skipped(self, damage: Damage) -> tuple[object, int]:
        """Move past the value that starts here, without parsing it; to the end of the text where it has no end."""
        scan = Scan()
        block = _STEP
        while self.has_text():
            piece = self.data[self.at : self.at + block]
            end = scan.feed(piece)
            if end is not None:
                self.at += end
                return _Skipped(damage.reason, damage.limited), self.at
            self.at += len(piece)
            block = min(2 * block, _text.PIECE)
        return damage, self.at

    def has_text(self) -> bool:
        """Whether there is text at the position."""
        return self.at < len(self.data) or self.grow()


def read_values(text: TextStream, shapes: Shapes, limits: Limits) -> Iterator[Found]:
    """Yield the rows of arrays and objects that stand one after the other; `Damage` where there is none.

    A row that fits into the buffer is read at once. Any other object is entered: the rows in its lists are yielded one
    by one, whatever its size, and what lies beside them is skipped.
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
        self._buffer = _Buffer(text, limits)
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
                # All others are entered, so that a large file and a small one are read alike.
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
                elif isinstance(value, Damage) and not isinstance(value, _Skipped):
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
        return _parsed(text), (name,)

    def _take(
        self, value: object, end: int, split: str | None, header: list[str] | None = None, notes: tuple[str, ...] = ()
    ) -> Iterator[Found]:
        """Yield the rows of the value that was read here, and move behind it."""
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
            key = _skip_to_row(self._buffer, noticed, self._shapes.is_row)
        except _Hopeless:
            yield self._damage("broken file: too much of it is damaged to find the next row; write it again")
            self._buffer.stop()
            key = None
        self._over = not self._buffer.peek()
        return key

    def _hold(self, start: int, end: int, mark: str) -> bool:
        """Count a value that stays in memory until its container ends; False where they are too many."""
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
            outer: the split of the lists beside it.
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
            if isinstance(value, Damage) and not isinstance(value, _Skipped):
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
                    over = _too_long(self._limits)
                if over is not None:
                    first, encodings = [], []
        if not self._text.broken:
            yield self._damage("truncated file: the array has no end, so rows may be missing; copy it again")
        return _End.LOST

    def _object(self, split: str | None, depth: int) -> Generator[Found, None, object]:
        """Read the object that starts here, which lies below so many keys, member by member."""
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
            # An object inside of a row is no row, whatever its keys.
            column = mark not in "[{" or is_row or shapes.is_column(key)
            if mark == "[" and not column:
                header = shapes.header(members) if key.lower() == "data" else None
                value = yield from self._list(shapes.split(key, split), split, header)
            elif mark == "{" and not column and depth < DEPTH:
                value = yield from self._object(shapes.split(key, split), depth + 1)
            else:
                value, end = buffer.value()
                if isinstance(value, _Skipped):
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
                    over = over or _too_long(self._limits)
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
            if isinstance(over, _Skipped):
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
        """Yield why a table in columns cannot be read, and end: what follows are parts of it."""
        yield self._damage(
            f"columns too long: a table in columns is read as a whole, up to {self._limits.row_bytes:,} characters and"
            f" {self._limits.row_values:,} values; write one object per row, as JSON Lines, or raise"
            " ingest.max_row_bytes or ingest.max_row_values",
            limited=True,
        )
        self._buffer.stop()


def _skip_to_row(buffer: _Buffer, noticed: int, is_row: Callable[[object], bool]) -> str | None:
    """Move to the next row after a damaged one, or to the end of the text where none follows.

    Returns:
        The key of the list that the row begins; None where it begins none.

    Raises:
        _Hopeless: the search takes time out of proportion to the text.
    """
    # A row that lacks its closing brace is noticed inside the next one.
    buffer.at = min(max(noticed - 64, buffer.at + 1), len(buffer.data))
    buffer.take_small_steps()
    while True:
        start = buffer.data.find("{", buffer.at)
        if start < 0:
            buffer.at = len(buffer.data)
            if not buffer.grow():
                return None
            continue
        before = buffer.data[max(0, start - _KEY_LENGTH) : start]
        buffer.at = start
        value, end = buffer.value()
        if is_row(value):
            key = _KEY.search(before)
            return str(_parsed(f'"{key[1]}"')) if key else None
        if isinstance(value, _Skipped):
            continue
        if not buffer.spend(max(_ATTEMPT, end - buffer.at)):
            raise _Hopeless
        buffer.at += 1
