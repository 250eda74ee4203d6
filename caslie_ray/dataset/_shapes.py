"""Finds the rows in a JSON value that is not a row itself: below keys, in wrappers, in columns.

It reads objects whose members hold rows, up to three levels down: ``{"data": [row, …]}``,
``{"train": [row, …], "test": [row, …]}``, ``{"id 1": row, …}``; rows in a wrapper of their own, as the dataset viewer
and search indexes give them: ``{"row_idx": 0, "row": row}``; lists of rows; and tables in columns:
``{"task": [cell, …], …}``, ``{"task": {"0": cell, …}, …}`` and ``{"columns": [name, …], "data": [[cell, …], …]}``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from caslie_ray.dataset._catalogue import CatalogueSettings
from caslie_ray.dataset._columns import Columns, split_of_name

__all__ = ["BELOW", "DEPTH", "FIRST", "IN_COLUMNS", "Damage", "Found", "Shapes"]

BELOW = "rows below a key"
IN_COLUMNS = "columns as rows"
FIRST = 20
"""Elements of a list that are examined to decide whether it holds rows."""
DEPTH = 3
"""Levels of keys above a row."""
_SHOWN = 8
_KNOWN = 1024  # sets of keys that are remembered


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of a file that holds no row.

    Attributes:
        reason: why.
        limited: whether it is over a limit of `Limits`, so that a higher limit may let it pass.
    """

    reason: str
    limited: bool = False


class Found(NamedTuple):
    """A value of a file that should be a row.

    Attributes:
        number: its place in the file, from 1.
        value: the row as a mapping; something else where there is no row; `Damage` with the reason.
        split: the split that the keys above the row name; None if they name none.
        notes: how it was read, where a user may not expect it.
    """

    number: int
    value: object
    split: str | None = None
    notes: tuple[str, ...] = ()


class Shapes:
    """Finds rows inside other values.

    Args:
        columns: the names that columns may have.
        catalogue: how catalogues are read, whose products are rows, too; None if they are not read.
    """

    def __init__(self, columns: Columns, catalogue: CatalogueSettings | None = None) -> None:
        self._columns = columns
        self._catalogue = catalogue
        self._products: dict[tuple[object, ...], bool] = {}

    def is_row(self, value: object) -> bool:
        """Whether a value is a row, or a wrapper around one."""
        return self._columns.is_row(value) or self._wrapped(value) is not None or self._is_product(value)

    def _is_product(self, value: object) -> bool:
        if self._catalogue is None or not isinstance(value, Mapping):
            return False
        names = tuple(value)
        known = self._products.get(names)
        if known is None:
            known = self._catalogue.is_product(value)
            if len(self._products) < _KNOWN:
                self._products[names] = known
        return known

    def _wrapped(self, value: object) -> tuple[str, Mapping[str, object]] | None:
        """Return the row in a wrapper, with its key, where the wrapper holds one row and nothing else that has rows."""
        if not isinstance(value, Mapping):
            return None
        rows = [(key, member) for key, member in value.items() if self._columns.is_row(member)]
        if len(rows) != 1 or self.holds_columns(rows[0][1]):
            return None
        lists = (member for member in value.values() if isinstance(member, list))
        return None if any(self._columns.is_row(one) for member in lists for one in member[:FIRST]) else rows[0]

    def is_column(self, key: object) -> bool:
        """Whether a key names a column of a data set."""
        return self._columns.known(key) is not None

    def names_task(self, key: object) -> bool:
        """Whether a key names the column `task`, which makes an object a row."""
        return self._columns.is_row({key: None})

    def split(self, key: str, split: str | None) -> str | None:
        """Return the split of rows below a key: the one that it names, or else that of the keys above."""
        return split_of_name(key) or split

    def header(self, members: Mapping[str, object]) -> list[str] | None:
        """Return the names of the columns where an object lists them next to its rows; None if it does not."""
        names = members.get("columns")
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return names if any(self._columns.known(name) == "task" for name in names) else None
        return None

    def holds_columns(self, members: Mapping[str, object]) -> bool:
        """Whether an object, perhaps a part of one, is a table in columns."""
        task = next((value for key, value in members.items() if self._columns.known(key) == "task"), None)
        if not isinstance(task, (list, Mapping)):
            return self.header(members) is not None
        return all(isinstance(value, type(task)) for key, value in members.items() if self.is_column(key))

    def holds_rows(self, value: object) -> bool:
        """Whether a value is a row, or a list that begins with rows."""
        return self.is_row(value) or (isinstance(value, list) and any(map(self.is_row, value[:FIRST])))

    def expand(self, value: object, split: str | None = None, notes: tuple[str, ...] = ()) -> Iterator[Found]:
        """Yield the rows in a value, all with number 0; the value itself if it holds none."""
        rows = list(self.rows(value, split))
        if not rows:
            yield Found(0, self._no_rows(value), split, notes)
        for row in rows:
            yield row._replace(notes=(*notes, *row.notes))

    def rows(self, value: object, split: str | None, depth: int = 0) -> Iterator[Found]:
        """Yield the rows in a value at this depth of keys, all with number 0."""
        note = (BELOW,) if depth else ()
        if isinstance(value, list):
            if self.holds_rows(value):
                for member in value:
                    found = list(self.rows(member, split, max(depth, 1)))
                    yield from found or [Found(0, member, split, (BELOW,))]
        elif not isinstance(value, Mapping):
            return
        elif self.holds_columns(value):
            for row in self._from_columns(value):
                yield Found(0, row, split, (*note, IN_COLUMNS))
        elif self._columns.is_row(value) or self._is_product(value):
            yield Found(0, value, split, note)
        elif (wrapped := self._wrapped(value)) is not None:
            yield Found(0, _unshortened(value, wrapped[1]), self.split(wrapped[0], split), (BELOW,))
        elif depth < DEPTH:
            for key, member in value.items():
                if isinstance(member, (Mapping, list)):
                    yield from self.rows(member, self.split(str(key), split), depth + 1)

    def _no_rows(self, value: object) -> object:
        """Return what a value without rows is: a reason where it looks like a container, or else itself."""
        if not isinstance(value, Mapping):
            return value
        keys = ", ".join(repr(str(key)) for key in list(value)[:_SHOWN])
        if any(_objects(member) for member in value.values()):
            return Damage(
                f"no rows: an object with the keys {keys}; the objects in it have no column task (or task_name,"
                " task_type): add it, or name your column with ingest.keys.task"
            )
        if any(member == [] for member in value.values()) and not any(map(self.is_column, value)):
            return Damage(f"no rows: an object with the keys {keys}, whose lists are empty")
        return value

    def _from_columns(self, table: Mapping[str, object]) -> Iterator[object]:
        header = self.header(table)
        if header is not None:
            rows = table.get("data")
            for cells in rows if isinstance(rows, list) else []:
                yield self.with_header(header, cells)
            return
        columns = {key: value for key, value in table.items() if isinstance(value, (list, Mapping))}
        known = {key: value for key, value in columns.items() if self._columns.known(key)}
        sizes = {key: len(value) for key, value in known.items()}
        places: dict[str, list[object]] = {
            key: list(value) if isinstance(value, Mapping) else list(range(len(value))) for key, value in known.items()
        }
        first = next(iter(places.values()))
        if any(set(map(str, place)) != set(map(str, first)) for place in places.values()):
            shown = ", ".join(f"{key} {size}" for key, size in sizes.items())
            yield Damage(f"columns of different lengths: {shown}; write one object per row, as JSON Lines")
            return
        same = {key: value for key, value in columns.items() if len(value) == len(first)}
        for place in first:
            yield {key: _cell(value, place) for key, value in same.items()}

    def with_header(self, header: Sequence[str], cells: object) -> object:
        """Return a row from the names of its columns and its cells; `Damage` where they do not fit."""
        if isinstance(cells, list) and len(cells) == len(header):
            return dict(zip(header, cells, strict=True))
        count = len(cells) if isinstance(cells, list) else "no"
        return Damage(f"row of another length: {count} cells for {len(header)} columns; write this row again")


def _cell(column: object, place: object) -> object:
    if isinstance(column, Mapping):
        return column.get(place)
    return column[place] if isinstance(column, list) and isinstance(place, int) else None


def _unshortened(wrapper: Mapping[str, object], row: Mapping[str, object]) -> object:
    cut = wrapper.get("truncated_cells")
    if not isinstance(cut, list) or not cut:
        return row
    names = ", ".join(map(str, cut))
    return Damage(f"shortened row: the dataset viewer cut {names}; use the files of the data set instead")


def _objects(member: object) -> bool:
    return isinstance(member, list) and any(isinstance(one, Mapping) for one in member[:FIRST])
