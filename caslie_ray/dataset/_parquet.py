"""Rows of a Parquet file, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from caslie_ray.dataset._shapes import Damage, Found

__all__ = ["read_rows"]

# Rows may hold pictures of many megabytes.
_BATCH = 32


def read_rows(file: pa.NativeFile | pa.PythonFile) -> Iterator[Found]:
    """Yield the number, from 1, and the mapping of each row; `Damage` where a stretch cannot be read.

    A column of type map is a mapping, at any depth.

    Raises:
        pyarrow.ArrowException, OSError: the file is no Parquet file, or its end is missing.
    """
    parquet = pq.ParquetFile(file)
    start = 1
    for group in range(parquet.num_row_groups):
        count = parquet.metadata.row_group(group).num_rows
        number = start
        start += count
        try:
            for batch in parquet.iter_batches(_BATCH, row_groups=[group], use_threads=False):
                for row in range(batch.num_rows):
                    yield Found(number, _row(batch, row))
                    number += 1
        except (pa.ArrowException, OSError) as error:
            detail = str(error).split("\n")[0][:200]
            reason = f"damaged Parquet: rows {number} to {start - 1}: {detail}; copy the file again"
            yield Found(number, Damage(reason))


def _row(batch: pa.RecordBatch, row: int) -> object:
    try:
        return batch.slice(row, 1).to_pylist(maps_as_pydicts="strict")[0]
    except KeyError as error:
        key = str(error.args[0] if error.args else error)[:200]
        return Damage(f"ambiguous map: {key}; write each key once")
    except (pa.ArrowException, ValueError, OverflowError) as error:
        return Damage(f"damaged Parquet: the row cannot be read: {str(error)[:200]}; write it again")
