"""Delimited text with a header line: CSV, TSV, and tables with semicolons or pipes."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice

from caslie_ray.dataset._delimited_records import QUOTES_FIX, Dialect, Record, Records
from caslie_ray.dataset._json_scan import too_many_values
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._shapes import Damage, Found
from caslie_ray.dataset._text_stream import TextStream, Undecodable

__all__ = ["BLANK", "FEWER", "NUL", "STRAY", "TWICE", "read_delimited", "trimmed"]

TWICE = "a column occurs twice"
FEWER = "row with fewer cells than the header"
STRAY = "quotes in a quoted cell that are not doubled"
NUL = "NUL characters left out"
BLANK = " \t\r\n\ufeff"
"""Characters around the names of columns that are not part of them."""


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
            return Damage(f"{what}: {len(cells)} cells of {width}; {QUOTES_FIX}, here and in the rows above"), ()
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
