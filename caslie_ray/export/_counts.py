"""What is counted of exported products."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

__all__ = ["Counts"]


@dataclass
class Counts:
    """Counts of some products and their views. Products that are no longer in the catalogue count in `gone` only.

    Attributes:
        products: products in the catalogue.
        gone: products that are no longer in it.
        without_image: products without any image.
        won: views whose caption won.
        lost: views whose caption lost.
        failed: views without a verdict: their image or their caption failed.
        missing: views that are not captioned yet.
        rows: rows of the export.
        bytes: size of these, as stored in parts.
    """

    products: int = 0
    gone: int = 0
    without_image: int = 0
    won: int = 0
    lost: int = 0
    failed: int = 0
    missing: int = 0
    rows: int = 0
    bytes: int = 0

    def add(self, other: Counts) -> None:
        """Add the counts of other products."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def as_json(self) -> dict[str, int]:
        """Return it as JSON has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, int]) -> Counts:
        """Return what `as_json` returned."""
        return cls(**stored)
