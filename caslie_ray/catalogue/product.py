"""One product of a shop's catalogue."""

from __future__ import annotations

from dataclasses import dataclass

from caslie_ray.tasks import ImageRef

__all__ = ["Product", "RowProblem"]


@dataclass(frozen=True, slots=True)
class Product:
    """One product, from one row of a catalogue or from several.

    Attributes:
        product_id: the shop's own id.
        texts: its texts by column, as plain text: first the canonical names that it has (`title`, `description`,
            `category`, `brand`), then the other columns of the source that are not empty.
        images: its image references, in order, each once.
        number: the first of its rows in the file, from 1.
        notes: how the rows were read, where a user may not expect it.
    """

    product_id: str
    texts: tuple[tuple[str, str], ...]
    images: tuple[ImageRef, ...]
    number: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RowProblem:
    """A row of a catalogue that cannot be used.

    Attributes:
        number: the row in the file, from 1.
        reason: what is wrong, and how to fix it.
    """

    number: int
    reason: str
