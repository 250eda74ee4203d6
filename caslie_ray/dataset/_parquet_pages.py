"""The unpacked size of the pages of a Parquet row group, from their headers and before any is unpacked.

A footer may be wrong. Parquet readers trust the header of each page, and so does this module.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from caslie_ray.dataset._limits import Limits, OverLimit
from caslie_ray.dataset._parquet_delta import value_sizes
from caslie_ray.dataset._thrift import Thrift, ThriftError

__all__ = ["Column", "survey"]

_HEADER = 4 << 10
_LONGEST_HEADER = 1 << 20
_VALUE = 8  # bytes that a value takes in memory, at least
_DICTIONARY_PAGE = 2
_DELTA_BYTE_ARRAY = 7
_RLE = 3
_SMALL_PAGE = 1 << 10
_SMALL_DICTIONARY = 64 << 10  # its size bounds the size of a value well enough
_LARGE_DICTIONARY = 4 << 20  # writers end a dictionary at 1 MiB
_LARGEST_PAGE = 1 << 30
_PAGE_OVERHEAD = 1 << 20


@dataclass(slots=True)
class Column:
    """The pages of a column in a row group.

    Attributes:
        path: the path of the column.
        unpacked: bytes that the pages unpack to, by their headers.
        decoded: bytes of the values, but for those that a dictionary holds.
        row_bytes: bytes of `decoded` that one row may take.
        repeated: bytes that one row may take beyond `decoded`, because values repeat.
        expanded: bytes that one row may take beyond its share of `unpacked`.
        in_dictionary: whether the column can be read as a dictionary, so that its values do not repeat.
    """

    path: str
    unpacked: int = 0
    decoded: int = 0
    row_bytes: int = 0
    repeated: int = 0
    expanded: int = 0
    in_dictionary: bool = False

    def memory(self, rows: int) -> int:
        """Return the bytes that so many rows take, decoded together."""
        return min(self.decoded, rows * self.row_bytes) + rows * self.repeated


def survey(file: Any, parquet: pq.ParquetFile, group: int, limits: Limits) -> list[Column]:
    """Read the headers of the pages of a row group, its dictionaries, and pages in which values share prefixes.

    Args:
        file: the file that `parquet` reads, or another handle on it.
        parquet: the open Parquet file.
        group: index of the row group.
        limits: the limits.

    Raises:
        OverLimit: a page is too large.
        pa.ArrowInvalid: a header cannot be read.
    """
    metadata = parquet.metadata.row_group(group)
    return [
        _column(file, metadata.column(index), parquet.schema.column(index), limits)
        for index in range(metadata.num_columns)
    ]


def _column(file: Any, chunk: Any, schema: Any, limits: Limits) -> Column:
    found = Column(schema.path)
    nested = bool(schema.max_repetition_level)
    text = schema.physical_type == "BYTE_ARRAY"
    # A null of fixed length takes its length in memory, and nothing in the file.
    value_bytes = schema.length if schema.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0
    most_values = 0
    dictionary = prefixed = False
    for at, header in _headers(file, chunk):
        size, values, encoding = _of(header)
        if size > _most_page_bytes(int(header[3]), limits) or _VALUE * values > limits.page_bytes:
            raise OverLimit(
                f"source refused: a page of column {schema.path[:100]!r} unpacks to more than"
                f" {limits.page_bytes:,} bytes; write smaller pages, or raise ingest.max_row_bytes"
            )
        found.unpacked += size
        if header.get(1) == _DICTIONARY_PAGE:
            dictionary = True
            if text:
                value_bytes = max(value_bytes, _longest(file, at, header, chunk, size))
            continue
        most_values = max(most_values, values)
        decoded = size
        # A page of lists may be a single row.
        row_bytes = size if nested else size // max(1, values)
        if text and encoding == _DELTA_BYTE_ARRAY:
            prefixed = True
            decoded, longest = size * values, size
            if size > _SMALL_PAGE:
                found.unpacked += _VALUE * values  # their exact sizes would take time
                decoded, longest = _of_delta(file, at, header, chunk, schema) or (decoded, longest)
            row_bytes = decoded if nested else longest
            found.expanded = max(found.expanded, decoded - size if nested else longest)
        found.decoded += max(decoded, _VALUE * values)
        found.row_bytes = max(found.row_bytes, row_bytes)
    found.repeated = value_bytes * (most_values if nested else 1)
    found.expanded = max(found.expanded, found.repeated)
    found.in_dictionary = dictionary and text and not prefixed
    return found


def _most_page_bytes(packed: int, limits: Limits) -> int:
    """Return the bytes that a page of a packed size may unpack to. What is hardly compressed is no bomb.

    Writers end a page after a number of values, so that a page of images is large.
    """
    return max(limits.page_bytes, min(_LARGEST_PAGE, packed + packed // 10 + _PAGE_OVERHEAD))


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


def _longest(file: Any, at: int, header: dict[int, Any], chunk: Any, size: int) -> int:
    """Return an upper bound of the bytes of a value in a dictionary."""
    if not _SMALL_DICTIONARY < size <= _LARGE_DICTIONARY:
        return size
    file.seek(at)
    data = _decompressed(file.read(header[3]), chunk, size)
    if data is None:
        return size
    longest = place = 0
    read = struct.Struct("<I").unpack_from
    while place + 4 <= len(data):
        (length,) = read(data, place)
        longest = max(longest, length)
        place += 4 + length
    return min(size, longest)


def _of_delta(file: Any, at: int, header: dict[int, Any], chunk: Any, schema: Any) -> tuple[int, int] | None:
    """Return the bytes of the values of a page, and of the longest; None if they are unknown."""
    size, values, _ = _of(header)
    file.seek(at)
    body = file.read(header[3])
    try:
        if version_2 := header.get(8):
            levels = int(version_2[5]) + int(version_2[6])
            if levels < 0:
                return None
            packed = body[levels:]
            data = _decompressed(packed, chunk, size - levels) if version_2.get(7, True) else packed
            place = 0
        else:
            data = _decompressed(body, chunk, size)
            place = 0
            for level, encoding in ((schema.max_repetition_level, 4), (schema.max_definition_level, 3)):
                if level and data is not None:
                    if header[5][encoding] != _RLE:
                        return None
                    place += 4 + int.from_bytes(data[place : place + 4], "little")
    except (KeyError, TypeError, ValueError):
        return None
    return None if data is None else value_sizes(data[place:], values)


def _decompressed(data: bytes, chunk: Any, size: int) -> bytes | None:
    """Return what a page unpacks to; None if that fails, which reading it reports."""
    if chunk.compression == "UNCOMPRESSED":
        return data
    name = {"LZ4": "lz4_raw"}.get(chunk.compression, chunk.compression.lower())
    try:
        found: bytes = pa.Codec(name).decompress(data, size, asbytes=True)
    except (pa.ArrowException, ValueError, OSError):
        return None
    return found


def _headers(file: Any, chunk: Any) -> Iterator[tuple[int, dict[int, Any]]]:
    """Yield where each page of a column starts, and its header as the fields of Parquet's `PageHeader`."""
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < (chunk.dictionary_page_offset or 0) < at:
        at = chunk.dictionary_page_offset
    end = at + chunk.total_compressed_size
    if at < 0 or chunk.total_compressed_size < 0 or end > file.size():
        raise pa.ArrowInvalid("a column lies beyond the end of the file")
    while at < end:
        header, length = _header(file, at, end)
        packed = header.get(3)
        if not isinstance(packed, int) or packed < 0:
            raise pa.ArrowInvalid("the header of a page is damaged")
        yield at + length, header
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
