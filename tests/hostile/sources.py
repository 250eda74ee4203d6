"""Writes the source files of `test_sources`: small on disk, or made to be read slowly."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

__all__ = [
    "claiming",
    "claiming_page",
    "deep_lists",
    "encrypted",
    "in_members",
    "overlapping",
    "packed",
    "parquet",
    "repeated",
    "rows",
    "with_cell",
]


def rows(count: int) -> str:
    """Honest rows, one per line."""
    line = '{"task": "sentiment_analysis", "input": "{\\"review\\": \\"review %d\\"}", "output": "positive"}\n'
    return "".join(line % number for number in range(count))


def packed(text: str | bytes, times: int = 1) -> bytes:
    """A text that is repeated so many times, as gzip."""
    data = text.encode() if isinstance(text, str) else text
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([*(packer.compress(data) for _ in range(times)), packer.flush()])


def in_members(data: bytes, members: int) -> bytes:
    """Gzip of so many members, of which only the last holds data."""
    return gzip.compress(b"", 1) * (members - 1) + gzip.compress(data)


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    """A Parquet file of some columns."""
    sink = io.BytesIO()
    options = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30, "store_schema": False} | options
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue()


def repeated(text: str, count: int, per_row: int | None = None) -> Any:
    """A column with one text so many times, once in its dictionary; as lists where `per_row` is given."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([text]))
    if per_row is None:
        return column
    return pa.ListArray.from_arrays(pa.array(range(0, count + 1, per_row), pa.int32()), column)


def _varint(number: int) -> bytes:
    number *= 2  # zigzag
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _with_footer(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    length = struct.unpack("<I", data[-8:-4])[0]
    footer = change(data[-8 - length : -8])
    return data[: -8 - length] + footer + struct.pack("<I", len(footer)) + b"PAR1"


def claiming(rows: int, claimed: int) -> bytes:
    """A Parquet file of so many rows, whose footer claims another number."""
    data = parquet({"task": pa.array(["x"] * rows), "output": pa.nulls(rows, pa.int32())})
    found = _with_footer(data, lambda footer: footer.replace(_varint(rows), _varint(claimed)))
    assert len(found) > len(data)
    return found


def claiming_page(claimed: int) -> bytes:
    """A Parquet file with one page, whose header claims to unpack to so many bytes."""
    text = "x" * 70_001
    data = parquet({"task": pa.array([text])}, use_dictionary=False, write_statistics=False)
    chunk = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0)
    start, size = chunk.data_page_offset, chunk.total_compressed_size
    page = data[start : start + size]
    honest = next(_varint(70_001 + more) for more in range(64) if _varint(70_001 + more) in page[:16])
    lie = page.replace(honest, _varint(claimed), 1)
    data = data[:start] + lie + data[start + size :]
    return _with_footer(data, lambda footer: footer.replace(_varint(size), _varint(len(lie))))


def overlapping(data: bytes, groups: int) -> bytes:
    """A Parquet file whose row groups all are the only one of `data`."""
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    one = pq.ParquetFile(io.BytesIO(data)).metadata
    for _ in range(groups - 1):
        metadata.append_row_groups(one)
    sink = io.BytesIO()
    metadata.write_metadata_file(sink)
    return _with_footer(data, lambda _: sink.getvalue()[4:-8])


class _Keys(pe.KmsClient):  # type: ignore[misc]  # pyarrow has no types
    def __init__(self, _: object) -> None:
        super().__init__()

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return key_bytes

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return wrapped_key


def encrypted(columns: dict[str, Any], *, plaintext_footer: bool) -> bytes:
    """An encrypted Parquet file."""
    table = pa.table(columns)
    settings = pe.EncryptionConfiguration(
        footer_key="f",
        column_keys={"c": list(columns)},
        plaintext_footer=plaintext_footer,
        cache_lifetime=timedelta(minutes=5),
        double_wrapping=False,
    )
    keys = pe.CryptoFactory(_Keys).file_encryption_properties(pe.KmsConnectionConfig(), settings)
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, encryption_properties=keys) as writer:
        writer.write_table(table)
    return sink.getvalue()


def deep_lists(depth: int) -> Any:
    """A column with one value in lists that lie in one another so deep."""
    column: Any = pa.array([1])
    for _ in range(depth):
        column = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), column)
    return column


def with_cell(cell: str) -> str:
    """A row with a cell that is JSON."""
    return json.dumps({"task": "SA", "cell": "@"}).replace('"@"', cell)
