"""Delimited text divided into records, by the rules of `csv` before `csv` reads them.

So a record over a limit takes no memory, and a quote that is not closed costs its own row only: the lines after it are
read again as rows of their own. Time is linear in the text. Spaces before a cell are not part of it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import NamedTuple

from caslie_ray.dataset._shapes import Damage
from caslie_ray.dataset._text_stream import TextStream

__all__ = ["QUOTES_FIX", "Dialect", "Record", "Records"]

QUOTES_FIX = "close the quotes of cells, and double quotes inside of them"
"""What to do about quotes that cannot be read."""

_REREAD = 1 << 20  # characters that may be read again after unclosed quotes, besides the length of the text


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
        reason = f"row too long: more than {self._most:,} characters from line {self._begin} on; {QUOTES_FIX}"
        return Damage(f"{reason}. For a row of this size raise ingest.max_row_bytes", limited=True)

    def _unclosed(self) -> Record:
        """Return the damage of a record whose quote is not closed; its other lines are read again."""
        begin = self._begin
        damage = self._too_long()
        if damage is None:
            damage = Damage(f"unclosed quote: the cell that begins with it at line {begin} has no end; {QUOTES_FIX}")
            self._spare -= self._length
            if self._spare >= 0:
                if not self._again:
                    self._again, self._begin_again = self._kept.getvalue(), 0
                self._next = self._again.index(self._break, self._begin_again) + 1
                self._line = begin + 1
        self._start()
        return Record(begin, "", damage)
