"""What the pages of a Parquet row group unpack to, from their headers and before any is unpacked.

A footer may lie about it. The reader of Parquet trusts the header of each page, and so does this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from caslie_ray.dataset._limits import Limits, OverLimit
from caslie_ray.dataset._thrift import Thrift, ThriftError

__all__ = ["Pages", "survey"]

_HEADER = 4 << 10
_LONGEST_HEADER = 1 << 20
_VALUE = 8  # bytes that a value takes in memory, at least
_DICTIONARY_PAGE = 2
_DELTA_BYTE_ARRAY = 7


@dataclass(frozen=True, slots=True)
class Pages:
    """The pages of a row group.

    Attributes:
        unpacked: bytes that they unpack to.
        row_bytes: bytes of a row: in each column, the mean of the page where it is highest.
        repeated: by the path of a column, bytes that one row may take beyond its share of the pages, because a page
            states a value once for many rows.
        in_dictionaries: paths of the columns that can be read as dictionaries, so that they do not.
    """

    unpacked: int
    row_bytes: int
    repeated: dict[str, int]
    in_dictionaries: frozenset[str]


def survey(file: Any, parquet: pq.ParquetFile, group: int, limits: Limits) -> Pages:
    """Read the headers of the pages of a row group.

    Args:
        file: the file that `parquet` reads.
        parquet: the open Parquet file.
        group: index of the row group.
        limits: the limits.

    Raises:
        OverLimit: a page is too large.
        pa.ArrowInvalid: a header cannot be read.
    """
    metadata = parquet.metadata.row_group(group)
    unpacked = row_bytes = 0
    repeated: dict[str, int] = {}
    in_dictionaries: set[str] = set()
    for index in range(metadata.num_columns):
        chunk, column = metadata.column(index), parquet.schema.column(index)
        value_bytes = column.length if column.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0
        most_values = mean = 0
        prefixed = False
        for header in _headers(file, chunk):
            size, values, encoding = _of(header)
            if size > limits.page_bytes or _VALUE * values > limits.page_bytes:
                raise OverLimit(
                    f"source refused: a page of column {column.path[:100]!r} unpacks to more than"
                    f" {limits.page_bytes:,} bytes; write smaller pages, or raise ingest.max_row_bytes"
                )
            unpacked += max(size, _VALUE * values)
            most_values = max(most_values, values)
            # Of a column of lists, a page may be a single row.
            mean = max(mean, size if column.max_repetition_level else size // max(1, values))
            prefixed = prefixed or encoding == _DELTA_BYTE_ARRAY
            repeats = encoding == _DELTA_BYTE_ARRAY or header.get(1) == _DICTIONARY_PAGE
            if repeats and column.physical_type == "BYTE_ARRAY":
                value_bytes = max(value_bytes, size)
        row_bytes += mean
        repeated[column.path] = value_bytes * (most_values if column.max_repetition_level else 1)
        if chunk.has_dictionary_page and column.physical_type == "BYTE_ARRAY" and not prefixed:
            in_dictionaries.add(column.path)
    return Pages(unpacked, row_bytes, repeated, frozenset(in_dictionaries))


def _of(header: dict[int, Any]) -> tuple[int, int, int | None]:
    """Return the unpacked bytes of a page, the number of its values, and their encoding."""
    try:
        size = int(header[2])
        of_data = header.get(5) or header.get(8)
        values = int(of_data[1]) if of_data else 0
        encoding = of_data.get(2 if header.get(5) else 4) if of_data else None
    except (KeyError, TypeError, AttributeError, ValueError):
        raise pa.ArrowInvalid("the header of a page is damaged") from None
    if size < 0 or values < 0:
        raise pa.ArrowInvalid("the header of a page has a negative size")
    return size, values, encoding


def _headers(file: Any, chunk: Any) -> Iterator[dict[int, Any]]:
    """Yield the headers of the pages of a column, as the fields of Parquet's `PageHeader`."""
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < (chunk.dictionary_page_offset or 0) < at:
        at = chunk.dictionary_page_offset
    end = at + chunk.total_compressed_size
    if at < 0 or chunk.total_compressed_size < 0 or end > file.size():
        raise pa.ArrowInvalid("a column lies beyond the end of the file")
    while at < end:
        header, length = _header(file, at, end)
        yield header
        packed = header.get(3)
        if not isinstance(packed, int) or packed < 0:
            raise pa.ArrowInvalid("the header of a page is damaged")
        at += length + packed


def _header(file: Any, at: int, end: int) -> tuple[dict[int, Any], int]:
    """Return the header of a page and its length."""
    size = _HEADER
    while True:
        file.seek(at)
        reader = Thrift(file.read(min(size, end - at)))
        try:
            return reader.struct(), reader.at
        except ThriftError as error:
            if size >= min(_LONGEST_HEADER, end - at):
                raise pa.ArrowInvalid(f"the header of a page is damaged: {error}") from None
        size *= 16
