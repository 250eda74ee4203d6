"""The formats by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import BinaryIO, Protocol

import pyarrow as pa

from caslie_ray.export._parquet_format import DATASET, PARQUET
from caslie_ray.export._text_format import CSV, JSON_LINES, MERCHANT_CENTER, SHOPIFY

__all__ = ["FORMATS", "Format"]


class Format(Protocol):
    """How rows are written: first in parts, then as files that are made of one part or more."""

    def encode(self, rows: pa.Table) -> tuple[pa.Buffer, int]:
        """Return rows of `ROWS` as a part, and the number of rows in it."""

    def write_one(self, stream: BinaryIO, part: BinaryIO) -> None:
        """Write a file that is one part."""

    def write_all(self, stream: BinaryIO, parts: Iterable[BinaryIO]) -> None:
        """Write a file from any number of parts, in their order."""


FORMATS: Mapping[str, Format] = {
    "csv": CSV,
    "jsonl": JSON_LINES,
    "parquet": PARQUET,
    "dataset": DATASET,
    "shopify": SHOPIFY,
    "merchant_center": MERCHANT_CENTER,
}
"""The keys are those of `caslie_ray.export.options.ENDINGS`."""
