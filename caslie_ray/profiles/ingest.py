"""How sources are read."""

from __future__ import annotations

import codecs
from typing import Literal

from pydantic import Field, field_validator

from caslie_ray.profiles._base import Positive, Settings
from caslie_ray.profiles.source_keys import SourceKeys

__all__ = ["IngestSettings"]


class IngestSettings(Settings):
    """How sources are read."""

    chunk_rows: Positive = 500
    """Samples of a source per task."""

    concurrency: Positive = 2
    """Parallel tasks. Each downloads `images.concurrency` images at a time."""

    encoding: str | None = None
    """Encoding of JSON and tables without a byte order mark, such as `cp1251` or `shift_jis`; null detects it: UTF-8,
    UTF-16, UTF-32, or cp1252 if a file is not UTF-8 and its non-ASCII bytes are distributed as in Western text."""

    format: Literal[
        "auto", "mmecinstruct", "shopify", "woocommerce", "magento", "merchant_center", "amazon_reviews_2023", "abo",
        "esci", "shopify_product_catalogue", "plain",
    ] = "auto"  # fmt: skip
    """`mmecinstruct`: rows are samples of a task. The others are catalogues: rows are products, by the columns of this
    export; `plain`: by usual names of columns, or `keys`. `auto` reads it from the header."""

    keys: SourceKeys = SourceKeys()
    """Column names of the source."""

    max_rows: Positive = 200_000_000
    """Maximum rows per source file; the rest is one reject."""

    max_row_bytes: int = Field(default=64 << 20, ge=1 << 10, le=1 << 30)
    """Maximum bytes per row, decompressed (in JSON, characters); a longer row is a reject. A Parquet page may have
    eight times as many, or up to 1 GiB if compression saves at most a tenth, as for images. A reader takes up to about
    six times as much memory, or twice such a page."""

    max_row_values: int = Field(default=1_000_000, ge=100)
    """Maximum values per row, nested ones included, or per JSON table that is stored by columns."""

    max_nesting: int = Field(default=100, ge=8, le=200)
    """Maximum levels of lists and objects per row."""

    max_columns: int = Field(default=10_000, ge=10)
    """Maximum columns of a Parquet file, nested ones included, or of a table, and names of an XML feed."""

    max_ratio: int = Field(default=200, ge=1)
    """Maximum decompressed bytes per byte of a source file (gzip or Parquet), beyond the first 16 MiB. A row counts as
    at least 1 KiB. The rest is one reject."""

    max_temporary_bytes: Positive = 64 << 30
    """Maximum bytes of a decompressed `.parquet.gz` on the reader's local disk. A tenth of the disk stays free."""

    @field_validator("encoding")
    @classmethod
    def _is_text_encoding(cls, name: str | None) -> str | None:
        if name is None:
            return None
        try:
            codecs.getincrementaldecoder(name)
            usable = "{}".encode(name).decode(name) == "{}"
        except (LookupError, UnicodeError):
            usable = False
        if not usable:
            raise ValueError(f"{name} is no text encoding of Python; use e.g. utf-8, cp1252, cp1251 or shift_jis")
        return name
