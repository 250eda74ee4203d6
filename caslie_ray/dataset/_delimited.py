"""Delimited text with a header line: CSV, TSV, and tables with semicolons or pipes.

The text is divided into records by the rules of `csv` before `csv` reads them, so that a record over a limit takes no
memory, and a quote that is not closed costs its own row only: the lines after it are read again as rows of their own.
Time is linear in the text. Spaces before a cell are not part of it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from caslie_ray.dataset._json_scan import too_many_values
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._shapes import Damage, Found
from caslie_ray.dataset._text_stream import TextStream, Undecodable

__all__ = ["BLANK", "FEWER", "NUL", "STRAY", "TWICE", "Dialect", "Record", "Records", "read_delimited", "trimmed"]

TWICE = "a column occurs twice"
FEWER = "row with fewer cells than the header"
STRAY = "quotes in a quoted cell that are not doubled"
NUL = "NUL characters left out"
BLANK = " \t\r\n\ufeff"
"""Characters around the names of columns that are not part of them."""

_REREAD = 1 << 20  # characters that may be read again after unclosed quotes, besides the length of the text
_FIX = "close the quotes of cells, and double quotes inside of them"


class Dialect(NamedTuple):
    """How a table is written.

    Attributes:
        delimiter: the character between cells.
        line_break: the character that ends a line.
        announced: whether the first line names the delimiter, as Excel's ``sep=;`` does.
    """

    delimiter: str
    line_break: str = "\n"
    announced: bool = False


class Record(NamedTuple):
    """A line, or several where a quoted cell has line breaks.

    Attributes:
        line: where it begins, from 1.
        text: its text; empty where it has `damage`.
        damage: why it cannot be read.
        stray: whether text follows the closing quote of a cell.
    """

    line: int
    text: str
    damage: Damage | None = None
    stray: bool = False

    @property
    def is_unclosed(self) -> bool:
        """Whether its quote is not closed, so that the records after it may be parts of it."""
        return self.damage is not None and not self.damage.limited

    def cells(self, delimiter: str) -> list[str]:
        """Return its cells.

        Raises:
            csv.Error: it has a line break outside of quotes.
        """
        if len(self.text) > csv.field_size_limit():
            csv.field_size_limit(len(self.text))  # one for the process; what is read was limited before
        return next(csv.reader((self.text,), delimiter=delimiter, skipinitialspace=True), [])


class _Quotes:
    """Follows the quoted cells of a record, by the rules of `csv`.

    Attributes:
        inside: whether the text so far ends in a quoted cell.
        several: whether that cell has several lines; to be set where it goes on in the next one.
        stray: whether text follows a closing quote.
        broken: whether text follows a closing quote that ends a cell of several lines: one of the two is wrong.
    """

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter
        self._first = re.compile(' *"')
        self._opening = re.compile(f'{re.escape(delimiter)} *"')
        self.reset()

    def reset(self) -> None:
        """Go to the start of a record."""
        self.inside = self.stray = self.broken = False
        self._at_start = True  # of a cell
        self._closed = False  # the last character is a closing quote, or the first of two
        self.several = False  # the quoted cell has a line break

    def feed(self, part: str) -> None:
        """Go past a part of a line."""
        at = 0 if self.inside or self._closed or '"' in part else len(part)
        while at < len(part):
            if self._closed:
                self._closed = False
                self.inside = part[at] == '"'
                if self.inside:
                    at += 1
                elif part[at] not in (self._delimiter, "\r"):
                    self.stray = True
                    self.broken = self.broken or self.several
            elif self.inside:
                end = part.find('"', at)
                if end < 0:
                    return
                at = end + 1
                self.inside, self._closed = False, True
            else:
                found = (self._first.match(part, at) if self._at_start else None) or self._opening.search(part, at)
                self._at_start = False
                if found is None:
                    break
                at = found.end()
                self.inside, self.several = True, False
        if bare := part.rstrip(" "):
            self._at_start = not self.inside and bare.endswith(self._delimiter)


class Records:
    """Divides text into records; empty lines are left out. Where the text is broken, its last line is left out too."""

    def __init__(self, text: TextStream, dialect: Dialect, most: int) -> None:
        self._text = text
        self._break = dialect.line_break
        self._most = most
        self._quotes = _Quotes(dialect.delimiter)
        self._again, self._next = "", 0  # lines that are read again, and the position of the next one
        self._spare = _REREAD
        self._kept = io.StringIO(newline="")
        self._length = 0
        self._line = 1
        self._ended = False
        self._start()

    def _start(self) -> None:
        if self._length:
            self._quotes.reset()
            self._kept = io.StringIO(newline="")
            self._length = 0
        self._begin = self._line
        self._begin_again = self._next if self._again else -1

    def __iter__(self) -> Iterator[Record]:
        return filter(None, map(self._end_line, self._lines()))

    def _lines(self) -> Iterator[str]:
        """Yield the last part of each line; those before it are added."""
        while piece := self._text.more():
            self._spare += len(piece)
            *ended, last = piece.split(self._break)
            for part in ended:
                yield part
                if self._again:
                    yield from self._lines_again()
            self._add(last)
        self._ended = True
        if not self._text.broken:
            yield ""
            yield from self._lines_again()

    def _lines_again(self) -> Iterator[str]:
        while self._again:
            end = self._again.find(self._break, self._next)
            part = self._again[self._next : end if end >= 0 else None]
            self._next = end + 1
            if end < 0:
                self._again = ""
            yield part

    def _add(self, part: str) -> None:
        self._quotes.feed(part)
        self._keep(part)

    def _keep(self, part: str) -> None:
        self._length += len(part)
        if self._length <= self._most:
            self._kept.write(part)
        elif self._kept.tell():
            self._kept = io.StringIO(newline="")

    def _end_line(self, part: str) -> Record | None:
        self._line += 1
        if not (part or self._length):  # an empty line
            self._start()
            return None
        self._add(part)
        if self._quotes.inside:
            self._quotes.several = True
            self._keep(self._break)
            return self._unclosed() if self._ended and not self._again else None
        if self._quotes.broken:
            return self._unclosed()
        record = Record(self._begin, self._kept.getvalue(), self._too_long(), self._quotes.stray)
        self._start()
        return record if record.damage or record.text.strip(" \r\ufeff") else None

    def _too_long(self) -> Damage | None:
        if self._length <= self._most:
            return None
        reason = f"row too long: more than {self._most:,} characters from line {self._begin} on; {_FIX}"
        return Damage(f"{reason}. For a row of this size raise ingest.max_row_bytes", limited=True)

    def _unclosed(self) -> Record:
        """Return the damage of a record whose quote is not closed; its other lines are read again."""
        begin = self._begin
        damage = self._too_long()
        if damage is None:
            damage = Damage(f"unclosed quote: the cell that begins with it at line {begin} has no end; {_FIX}")
            self._spare -= self._length
            if self._spare >= 0:
                if not self._again:
                    self._again, self._begin_again = self._kept.getvalue(), 0
                self._next = self._again.index(self._break, self._begin_again) + 1
                self._line = begin + 1
        self._start()
        return Record(begin, "", damage)


def trimmed(cells: list[str]) -> list[str]:
    """Return cells without the empty ones at the end, which Excel writes."""
    count = next((count for count in range(len(cells), 0, -1) if cells[count - 1].strip(BLANK)), 0)
    return cells[:count]


def read_delimited(text: TextStream, dialect: Dialect, limits: Limits) -> Iterator[Found]:
    """Yield the rows of a table as mappings of the header's names to texts, `Damage` where there is none.

    A row's number is that of its record, from 1: the header and empty lines are not counted. A row of empty cells is
    counted and left out. Cells beyond the last name of the header must be empty. A column before it without a name is
    called ``column N``, and left out of rows in which it is empty.
    """
    table: _Table | None = None
    number, empty = 0, True
    first: tuple[str, ...] = ()
    for record in islice(Records(text, dialect, limits.row_bytes), int(dialect.announced), None):
        cells, notes = _decoded(record, text, dialect.delimiter, limits)
        if table is None:
            cells = _header(cells, limits)
            if isinstance(cells, Damage):
                yield Found(0, cells)
                return
            if cells:
                table = _Table(cells)
                first = (*notes, TWICE) if table.renamed else notes
            continue
        number += 1
        value, more = table.row(cells, record)
        if value is not None:
            yield Found(number, value, None, tuple(dict.fromkeys((*first, *notes, *more))))
            empty, first = False, ()
    if text.broken:
        yield Found(number + 1, Damage(f"broken file: it ends early: {text.broken}; copy it again"))
    elif empty:
        yield Found(0, Damage("empty table: there are no rows below its header; write them there"))


def _decoded(
    record: Record, text: TextStream, delimiter: str, limits: Limits
) -> tuple[list[str] | Damage, tuple[str, ...]]:
    """Return the cells of a record, and how they were read."""
    if record.damage is not None:
        return record.damage, ()
    line = record.text
    notes: tuple[str, ...] = (STRAY,) if record.stray else ()
    if text.is_damaged(line):
        try:
            line, name = text.repaired(line)
        except Undecodable as error:
            return Damage(str(error)), ()
        notes = (*notes, name)
    if "\0" in line:
        line = line.replace("\0", "")
        notes = (*notes, NUL)
    if line.count(delimiter) >= limits.row_values:
        return too_many_values(limits), ()
    try:
        return record._replace(text=line).cells(delimiter), notes
    except csv.Error:
        fix = "write quotes around its cell, or all line breaks of the file in the same way"
        return Damage(f"line break outside of quotes: {fix}"), ()


def _header(cells: list[str] | Damage, limits: Limits) -> list[str] | Damage:
    if isinstance(cells, Damage) or len(names := trimmed(cells)) <= limits.columns:
        return cells if isinstance(cells, Damage) else names
    reason = f"too many columns: more than {limits.columns:,}; leave some out, or raise ingest.max_columns"
    return Damage(reason, limited=True)


class _Table:
    """Makes rows of cells.

    Attributes:
        renamed: whether a name occurs twice in the header.
    """

    def __init__(self, header: list[str]) -> None:
        self._header = header
        self._names: dict[str, bool] = {}  # in order; whether the header has the name
        given = [cell.strip(BLANK) for cell in header]
        taken = {name for name in given if name}
        places: dict[str, int] = {}
        self.renamed = len(taken) < sum(map(bool, given))
        for place, name in enumerate(given, 1):
            base = free = name or f"column {place}"
            count = places.get(base, 1)
            while free in self._names or (free in taken and free != name):
                count += 1
                free = f"{base} ({count})"
            places[base] = count
            self._names[free] = bool(name)
        self._after_unclosed = False
        self._unnamed = [name for name, named in self._names.items() if not named]

    def row(self, cells: list[str] | Damage, record: Record) -> tuple[dict[str, str] | Damage | None, tuple[str, ...]]:
        """Return the row of a record, None if all cells are empty, and how it was read."""
        self._after_unclosed = self._after_unclosed or record.is_unclosed
        if isinstance(cells, Damage):
            return cells, ()
        if not any(cells):
            return None, ()
        width = len(self._names)
        if (record.stray or self._after_unclosed) and len(cells) != width:
            what = "part of a damaged row" if self._after_unclosed else "text after a closing quote"
            return Damage(f"{what}: {len(cells)} cells of {width}; {_FIX}, here and in the rows above"), ()
        self._after_unclosed = False
        if len(cells) > width and (count := len(trimmed(cells))) > width:
            reason = f"row with more cells than the header: {count} of {width}"
            return Damage(f"{reason}; quote cells that contain the delimiter"), ()
        if cells[:width] == self._header:
            return Damage("header in the place of a row: the file has it twice; remove this line"), ()
        fewer = width - len(cells)
        row = dict(zip(self._names, [*cells, *[""] * fewer], strict=False))
        for name in self._unnamed:
            if not row[name]:
                del row[name]
        return row, (FEWER,) if fewer > 0 else ()
