"""A product whose rows are being read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from caslie_ray.catalogue._format import Format
from caslie_ray.catalogue._rows import Place, RowValues
from caslie_ray.catalogue.product import Product, RowProblem
from caslie_ray.tasks import ImageRef, UnreadableImage

__all__ = ["MAX_IMAGES", "MAX_ROWS", "Draft"]

MAX_IMAGES = 1_000
"""Images of one product."""

MAX_ROWS = 10_000
"""Rows of one product."""

_SIZE = 512 << 20
_SEVERAL_IDS = "several ids in the rows of one product: the first is used"


@dataclass(slots=True)
class Draft:
    """A product whose rows are being read.

    Attributes:
        number: the first of its rows in the file, from 1.
        group: what its rows have in common.
        format: their format.
    """

    number: int
    group: str
    format: Format
    rows: int = 0
    size: int = 0
    product_id: str = ""
    id_columns: tuple[str, ...] = ()
    texts: dict[str, str] = field(default_factory=dict)
    images: dict[ImageRef, tuple[Place, int]] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)

    def add(self, number: int, values: RowValues) -> Iterator[RowProblem]:
        """Add a row, and yield why it is not used, or not all of it."""
        texts = {name: text for name, text in values.texts.items() if name not in self.texts}
        images = {image: place for image, place in values.images if image not in self.images}
        size = sum(map(len, texts.values())) + sum(map(_size, images))
        if self.rows == MAX_ROWS:
            yield RowProblem(
                number,
                f"too many rows for one product: more than {MAX_ROWS:,} have the same id; name the column of ids with"
                " ingest.keys.id",
            )
            return
        if self.rows and self.size + size > _SIZE:
            yield RowProblem(
                number,
                f"product too large: its rows have more than {_SIZE >> 20} MiB; give its images as paths or URLs",
            )
            return
        self.rows += 1
        self.size += size
        if values.product_id and not self.product_id:
            self.product_id, self.id_columns = values.product_id, values.id_columns
        elif values.product_id not in ("", self.product_id):
            self.notes[_SEVERAL_IDS] = None
        self.texts |= texts
        self.notes |= dict.fromkeys(values.notes)
        if not self._add_images(values):
            yield RowProblem(
                number,
                f"too many images for one product: the first {MAX_IMAGES:,} are used; name the column of ids with"
                " ingest.keys.id if the rows are of several products",
            )

    def _add_images(self, values: RowValues) -> bool:
        """Add the images that there is room for; an image that a row repeats has the first of its places."""
        fits = True
        for image, place in values.images:
            if image in self.images:
                self.images[image] = min(self.images[image], (place, self.images[image][1]))
            elif len(self.images) < MAX_IMAGES:
                self.images[image] = (place, len(self.images))
            else:
                fits = False
        return fits

    def product(self) -> Product:
        """Return the product of the rows; its id is empty if none of them has one."""
        images = sorted(self.images, key=self.images.__getitem__)
        return Product(self.product_id, tuple(self._named_texts()), tuple(images), self.number, tuple(self.notes))

    def _named_texts(self) -> Iterator[tuple[str, str]]:
        """Yield the canonical texts, then the others but the id, which are numbered if they have a canonical name."""
        used = set(self.id_columns) if len(self.id_columns) == 1 else set()
        given = set()
        for name, columns in self.format.texts.items():
            column = next((column for column in columns if column in self.texts), None)
            if column is not None:
                used.add(column)
                given.add(name)
                yield name, self.texts[column]
        for column, text in self.texts.items():
            if column not in used:
                name, number = column, 2
                while name in given:
                    name, number = f"{column}_{number}", number + 1
                given.add(name)
                yield name, text


def _size(image: ImageRef) -> int:
    return len(image.source) if isinstance(image, UnreadableImage) else len(image)
