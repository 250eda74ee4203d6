"""Joins the rows of a catalogue to products."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from caslie_ray.catalogue._draft import MAX_IMAGES, MAX_ROWS, Draft
from caslie_ray.catalogue._rows import RowReader
from caslie_ray.catalogue.formats import Format, shown_columns
from caslie_ray.catalogue.product import Product, RowProblem
from caslie_ray.profiles import SourceKeys

__all__ = ["MAX_IMAGES", "MAX_ROWS", "ROW_NUMBER_ID", "Joiner"]

ROW_NUMBER_ID = "rows without an id: the row number is used"
"""The note on products whose id is the number of their row, which is unique in its file only."""

_ID_CHARACTERS = 1_000


class Joiner:
    """Makes products of the rows of one source, in the order of the rows.

    It keeps the rows of one product at a time, at most `MAX_ROWS`, `MAX_IMAGES` images, and 512 MiB if it has several
    rows. A row, or the images of one, that are more are problems; what was read before them is kept.

    Args:
        format: the format of the source.
        keys: the keys of the profile.
    """

    def __init__(self, format: Format, keys: SourceKeys) -> None:
        self._reader = RowReader(format, keys)
        self._draft: Draft | None = None
        self._columns: tuple[object, ...] = ()

    def add(self, number: int, row: Mapping[str, object]) -> Iterator[Product | RowProblem]:
        """Add a row, and return what is complete now.

        Args:
            number: the row in the file, from 1.
            row: its cells by column.
        """
        values = self._reader.read(row)
        format = self._reader.format
        if not values.group and format.row_numbers:
            row_id = str(number)
            values = replace(values, product_id=row_id, group=row_id, notes=(*values.notes, ROW_NUMBER_ID))
        if not values.group:
            return iter((RowProblem(number, _no_id(format, row)),))
        longest = max(len(values.product_id), len(values.group))
        if longest > _ID_CHARACTERS:
            reason = (
                f"product id too long: {longest:,} characters, at most {_ID_CHARACTERS:,}; name the column of ids with"
                " ingest.keys.id"
            )
            return iter((RowProblem(number, reason),))
        found: list[Product | RowProblem] = []
        if self._draft is None or not format.joins or self._draft.group != values.group:
            found += self.end()
            self._draft = Draft(number, values.group, format)
            self._columns = tuple(row)
        found += self._draft.add(number, values)
        if not format.joins:
            found += self.end()
        return iter(found)

    def end(self) -> Iterator[Product | RowProblem]:
        """Return the last product; call it after the last row."""
        draft, self._draft = self._draft, None
        if draft is None:
            return iter(())
        product = draft.product()
        if not product.product_id:
            return iter((RowProblem(draft.number, _no_id(draft.format, self._columns)),))
        return iter((product,))


def _no_id(format: Format, columns: Iterable[object]) -> str:
    ids = " or ".join(" with ".join(columns) for columns in format.ids)
    return (
        f"product without an id: {ids} is empty or missing; name the column with ingest.keys.id; columns are"
        f" {shown_columns(columns)}"
    )
