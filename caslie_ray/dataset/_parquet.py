"""Rows of a Parquet file, a few at a time.

A few bytes of Parquet may unpack to gigabytes: pages are compressed, and values repeat. Pages are unpacked only after
their headers were checked against the limits (`_parquet_pages`), values that repeat often stay in dictionaries, and a
row becomes Python objects only after its size was estimated (`_row_sizes`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from caslie_ray.dataset._json_scan import too_many_values
from caslie_ray.dataset._limits import Limits, OverLimit, Ratio
from caslie_ray.dataset._parquet_pages import survey
from caslie_ray.dataset._row_sizes import sizes_of
from caslie_ray.dataset._shapes import Damage, Found

__all__ = ["read_rows"]

_BATCH = 128
_LARGE = 4 << 20  # bytes
_ORDINARY = 16 << 10  # bytes of a row that do not count towards the ratio: text may repeat
_FOOTER_END = 8  # bytes of the footer's length and the magic number
_NODES = 3  # nodes of a Parquet schema for a level of lists


def read_rows(
    file: pa.NativeFile | pa.PythonFile, limits: Limits, ratio: Ratio, headers: pa.PythonFile | None = None
) -> Iterator[Found]:
    """Yield the number, from 1, and the mapping of each row; `Damage` where a stretch cannot be read.

    A column of type map is a mapping, at any depth.

    Args:
        file: the file.
        limits: the limits on its cost.
        ratio: has the gzipped size, if it was gzipped; is given the file's size otherwise.
        headers: another handle on the file, for short random reads; None for `file`.

    Raises:
        pyarrow.ArrowException, OSError: the file is no Parquet file, or its end is missing.
        OverLimit: it unpacks to too much.
    """
    ratio.size = ratio.size or file.size()
    parquet = _open(file, limits)
    plain = parquet.schema_arrow
    flat = all(not parquet.schema.column(one).max_repetition_level for one in range(parquet.metadata.num_columns))
    start = 1
    unpacked = given = 0
    for group in range(parquet.num_row_groups):
        number = start
        start += max(0, parquet.metadata.row_group(group).num_rows)
        try:
            columns = survey(headers or file, parquet, group, limits)
            unpacked += sum(column.unpacked for column in columns)
            ratio.check(unpacked)
            # Reading a dictionary as such takes longer, so only the large ones are.
            large = {column.path for column in columns if column.in_dictionary and column.repeated > _LARGE}
            kept = [column for column in columns if column.path not in large]
            if sum(column.expanded for column in kept) > 2 * limits.row_bytes:
                yield Found(number, Damage(_too_repetitive(number, start - 1), limited=True))
                continue
            rows = _BATCH
            while rows > 1 and sum(column.memory(rows) for column in kept) > limits.batch_bytes:
                rows //= 2
            reader = _open(file, limits, sorted(large)) if large else parquet
            for batch in reader.iter_batches(rows, row_groups=[group], use_threads=False):
                if flat and not large and batch.nbytes <= limits.row_bytes:
                    # No row can be too large: the exact sizes are not needed.
                    sizes = np.full(batch.num_rows, batch.nbytes // max(1, batch.num_rows))
                    values = np.full(batch.num_rows, batch.num_columns)
                else:
                    sizes, values = sizes_of(batch)
                if large and sizes.sum() <= limits.row_bytes:
                    batch = batch.cast(plain)  # faster than to look each value up
                for row, (size, count) in enumerate(zip(sizes.tolist(), values.tolist(), strict=True)):
                    if size > limits.row_bytes:
                        yield Found(number, _too_long(limits))
                    elif count > limits.row_values:
                        yield Found(number, too_many_values(limits))
                    else:
                        given += max(0, size - _ORDINARY)
                        ratio.check(given)
                        yield Found(number, _row(batch, row))
                    number += 1
        except (pa.ArrowException, OSError) as error:
            detail = str(error).split("\n")[0][:200]
            reason = f"damaged Parquet: rows {number} to {start - 1}: {detail}; copy the file again"
            yield Found(number, Damage(reason))


def _open(file: pa.NativeFile | pa.PythonFile, limits: Limits, dictionaries: list[str] | None = None) -> pq.ParquetFile:
    """Open a file; the columns with these paths are read as dictionaries."""
    parquet = pq.ParquetFile(file, read_dictionary=dictionaries, schema_depth_limit=_NODES * limits.nesting)
    metadata = parquet.metadata
    file.seek(file.size() - _FOOTER_END)
    if int.from_bytes(file.read(4), "little") != metadata.serialized_size:
        # A signature follows the footer. Asking for the metadata of an encrypted column would end the process.
        raise pa.ArrowInvalid("the file is encrypted: write it without encryption")
    if metadata.num_columns > limits.columns:
        raise OverLimit(
            f"source refused: {metadata.num_columns:,} columns, more than {limits.columns:,}; leave out what is no"
            " part of the data set, or raise ingest.max_columns"
        )
    return parquet


def _too_long(limits: Limits) -> Damage:
    return Damage(
        f"row too long: more than {limits.row_bytes:,} bytes; for a row of this size raise ingest.max_row_bytes",
        limited=True,
    )


def _too_repetitive(first: int, last: int) -> str:
    return (
        f"rows {first:,} to {last:,} refused: one of them may unpack to more than the reader may take; write the"
        " file with plain or dictionary encoding and variable lengths, or raise ingest.max_row_bytes"
    )


def _row(batch: pa.RecordBatch, row: int) -> object:
    try:
        return batch.slice(row, 1).to_pylist(maps_as_pydicts="strict")[0]
    except KeyError as error:
        key = str(error.args[0] if error.args else error)[:200]
        return Damage(f"ambiguous map: {key}; write each key once")
    except (pa.ArrowException, ValueError, OverflowError) as error:
        return Damage(f"damaged Parquet: the row cannot be read: {str(error)[:200]}; write it again")
