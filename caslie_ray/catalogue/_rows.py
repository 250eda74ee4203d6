"""Reads one row of a catalogue by its format."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from caslie_ray.catalogue._cells import cell_id, cell_text, has_binary, native
from caslie_ray.catalogue._column_names import unique_names
from caslie_ray.catalogue._format import Format, configured
from caslie_ray.catalogue._image_cells import image_references
from caslie_ray.catalogue.html_text import MAX_CHARACTERS, has_tags, html_to_text
from caslie_ray.profiles import SourceKeys
from caslie_ray.tasks import ImageRef

__all__ = ["Place", "RowReader", "RowValues"]

Place = tuple[tuple[int, int], float]
"""Where an image is among those of its product: the place of its column, and the number in the image-order column."""

_BINARY = "binary column left out: name it with ingest.keys.images if it has images"
_LONG_HTML = f"long HTML: a text is read up to {MAX_CHARACTERS:,} characters"
_ESCAPED_LINE = re.compile(r"\\(\\?)n")


@dataclass(frozen=True, slots=True)
class RowValues:
    """What a row has, by its format.

    Attributes:
        product_id: the product's id; empty if the row has none.
        id_columns: the columns of the id.
        group: what rows of one product have in common; empty if the row has neither this nor an id.
        texts: its texts by column, without empty ones.
        images: its image references, each with its place.
        notes: how it was read, where a user may not expect it.
    """

    product_id: str
    id_columns: tuple[str, ...]
    group: str
    texts: Mapping[str, str]
    images: tuple[tuple[ImageRef, Place], ...]
    notes: tuple[str, ...]


class RowReader:
    """Reads rows of one source; their columns may differ.

    Args:
        format: the format of the source.
        keys: the keys of the profile.
    """

    def __init__(self, format: Format, keys: SourceKeys) -> None:
        self._base = format
        self._keys = keys
        self._header: tuple[object, ...] = ()
        self._names: list[str] = []
        self.format = format
        """The format with the columns that the keys name in the last row."""
        self._images: dict[str, tuple[int, int]] = {}

    def read(self, row: Mapping[str, object]) -> RowValues:
        """Return the values of a row."""
        header = tuple(row)
        if header != self._header:
            self._read_header(header)
        cells = {name: native(cell) for name, cell in zip(self._names, row.values(), strict=True)}
        product_id, id_columns = self._id(cells)
        groups = (cell_id(cells.get(column)) for column in self.format.group)
        group = next((group for group in groups if group), product_id)
        notes: list[str] = [self.format.note] if self.format.note else []
        texts = dict(self._texts(cells, notes))
        return RowValues(product_id, id_columns, group, texts, tuple(self._references(cells)), tuple(notes))

    def _read_header(self, header: tuple[object, ...]) -> None:
        self._header = header
        self._names = unique_names(header)
        names = dict.fromkeys(self._names)
        self.format = configured(self._base, names, self._keys)
        self._images = self.format.image_columns(names)

    def _id(self, cells: Mapping[str, object]) -> tuple[str, tuple[str, ...]]:
        for columns in self.format.ids:
            values = [cell_id(cells.get(column)) for column in columns]
            if all(values):
                return ":".join(values), columns
        return "", ()

    def _texts(self, cells: Mapping[str, object], notes: list[str]) -> Iterator[tuple[str, str]]:
        descriptions = self.format.texts.get("description", ())
        for name, cell in cells.items():
            if name in self._images or name == self.format.image_order:
                continue
            if has_binary(cell):
                notes.append(_BINARY)
            text = cell_text(cell, name in self.format.levels)
            is_html = name in self.format.html
            if is_html and self.format.escaped_lines:
                text = _ESCAPED_LINE.sub(lambda found: "\\n" if found[1] else "\n", text)
            if is_html or (name in descriptions and has_tags(text)):
                if len(text) > MAX_CHARACTERS:
                    notes.append(_LONG_HTML)
                text = html_to_text(text).strip()
            if text:
                yield name, text

    def _references(self, cells: Mapping[str, object]) -> Iterator[tuple[ImageRef, Place]]:
        number = _number(cells.get(self.format.image_order))
        for name, place in self._images.items():
            for reference in image_references(cells[name], self.format):
                yield reference, (place, number)


def _number(cell: object) -> float:
    """Return a place in order; the last for a cell without a number."""
    with suppress(ValueError):
        number = float(cell_id(cell))
        return math.inf if math.isnan(number) else number
    return math.inf
