"""How a run's tables are cut into files, and how sources are read."""

from __future__ import annotations

import codecs

from pydantic import Field, field_validator

from caslie_ray.profiles._base import Positive, Settings

__all__ = ["IngestSettings", "SourceKeys", "StorageSettings"]


class StorageSettings(Settings):
    """How a run's tables are cut into files and blocks."""

    partition_digits: int = Field(default=1, ge=1, le=4)
    """First hex digits of an image_id that name its partition: 16 partitions with 1, 256 with 2."""

    block_rows: Positive = 64
    """Rows that one task hands to a model at a time, at most; fewer in a small job, so that no more than 1% of it is in
    hand. They are written together: what a task loses, and does again, with its machine."""


class SourceKeys(Settings):
    """What a source calls the columns of the released format."""

    task: str = "task"
    """Column of the task's name or code."""

    split: str = "split"
    """Column of the split."""

    instruction: str = "instruction"
    """Column of the instruction."""

    input: str = "input"
    """Column of the input: JSON or plain text."""

    options: str = "options"
    """Column of the options: a JSON list or a list."""

    output: str = "output"
    """Column of the expected answer."""

    images: str = "images"
    """Column of the image references: a JSON list or a list."""

    captions: str = "caption_info"
    """Column of the captions that the data set brings."""

    id: str = "id"
    """Column of the row's own id. It goes through to the tables as `source_ids`, and names no sample."""

    fields: dict[str, str] = Field(default_factory=dict)
    """Keys inside the input that differ from the release's: source key to released key."""


class IngestSettings(Settings):
    """How sources are read."""

    chunk_rows: Positive = 500
    """Samples of a source handled together by one task."""

    concurrency: Positive = 2
    """Such tasks at once. Each downloads `images.concurrency` images at a time."""

    encoding: str | None = None
    """Encoding of JSON sources without a byte order mark, such as `cp1251` or `shift_jis`; null detects it: UTF-8,
    UTF-16, UTF-32, or cp1252 where a file is not UTF-8 and its bytes beyond ASCII are spread as in Western text."""

    keys: SourceKeys = SourceKeys()
    """What the source calls its columns."""

    max_rows: Positive = 200_000_000
    """Rows of a source file; the rest is one reject."""

    max_row_bytes: int = Field(default=64 << 20, ge=1 << 10, le=1 << 30)
    """Bytes of a row, unpacked (in JSON, characters); a longer row is a reject. A Parquet page may have eight times as
    many, or up to 1 GiB where compression makes it smaller by a tenth at most, as with images. A reader takes up to
    some six times as much memory, or twice such a page."""

    max_row_values: int = Field(default=1_000_000, ge=100)
    """Values in a row, nested ones included, or in a JSON table that is written in columns."""

    max_nesting: int = Field(default=100, ge=8, le=200)
    """Levels of lists and objects in a row."""

    max_columns: int = Field(default=10_000, ge=10)
    """Columns of a Parquet file, nested ones included."""

    max_ratio: int = Field(default=200, ge=1)
    """Unpacked bytes per byte of a source file, gzip and Parquet alike, beyond the first 16 MiB. A row counts as 1 KiB
    at least. The rest is one reject."""

    max_temporary_bytes: Positive = 64 << 30
    """Bytes on the reader's local disk that a `.parquet.gz` may be unpacked to. A tenth of the disk stays free."""

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
