"""Joins through files: tasks in groups exchange rows by bucket.

A shuffle file is an Arrow IPC file whose nth record batch has the rows of the nth bucket.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from caslie_ray.errors import RunError
from caslie_ray.storage.redaction import brief
from caslie_ray.storage.run import Run

__all__ = ["buckets_of", "in_groups", "read_bucket", "read_buckets", "read_senders", "write_buckets"]

_COMPRESSED = pa.ipc.IpcWriteOptions(compression="zstd")
_MAX_GROUPS = 512

_T = TypeVar("_T")


def buckets_of(ids: Iterable[str], count: int) -> npt.NDArray[np.int64]:
    """Return the bucket of each id, the same in every process and on every machine."""
    return np.fromiter((zlib.crc32(name.encode()) % count for name in ids), dtype=np.int64)


def write_buckets(run: Run, path: str, rows: pa.Table, buckets: npt.NDArray[np.int64], count: int) -> None:
    """Write rows by bucket, in their order within each; atomically.

    Args:
        run: where the file goes.
        path: its path.
        rows: the rows.
        buckets: the bucket of each row.
        count: the number of buckets.

    Raises:
        RunError: the store refuses.
    """
    order = np.argsort(buckets, kind="stable")
    ends = np.searchsorted(buckets[order], np.arange(count), side="right")
    rows = rows.take(pa.array(order))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, rows.schema, options=_COMPRESSED) as file:
        start = 0
        for end in ends.tolist():
            (batch,) = rows.slice(start, end - start).combine_chunks().to_batches() or (_empty(rows.schema),)
            file.write_batch(batch)
            start = end
    run.put(path, sink.getvalue())


def read_bucket(run: Run, path: str, bucket: int) -> pa.Table:
    """Return the rows of one bucket.

    Raises:
        RunError: the file cannot be read.
    """

    def read() -> pa.Table:
        with run.fs.open_input_file(path) as source, pa.ipc.open_file(source) as file:
            return pa.Table.from_batches([file.get_batch(bucket)], file.schema)

    try:
        rows: pa.Table = run.with_retries("read", path, read)
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"cannot read {path}: {brief(error)}; delete its folder and run again") from error
    return rows


def read_buckets(run: Run, paths: Sequence[str], bucket: int, schema: pa.Schema) -> pa.Table:
    """Return the rows of one bucket of several files, in the order of the files.

    Raises:
        RunError: a file cannot be read.
    """
    return pa.concat_tables([schema.empty_table(), *(read_bucket(run, path, bucket) for path in paths)])


def read_senders(
    run: Run, paths: Sequence[str], bucket: int, schema: pa.Schema
) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """Return what `read_buckets` does, and for each row the position of its file in `paths`.

    Raises:
        RunError: a file cannot be read.
    """
    parts = [read_bucket(run, path, bucket) for path in paths]
    senders = np.repeat(np.arange(len(parts)), [rows.num_rows for rows in parts])
    return pa.concat_tables([schema.empty_table(), *parts]), senders


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def in_groups(items: Sequence[_T], sizes: Sequence[int], group_bytes: int) -> list[list[_T]]:
    """Cut items into at most 512 groups of neighbours of about equal size: each step opens groups × buckets files.

    Args:
        items: the items, in order.
        sizes: the bytes of each.
        group_bytes: bytes of a group, unless there would be too many groups.
    """
    limit = max(group_bytes, math.ceil(sum(sizes) / _MAX_GROUPS))
    groups: dict[int, list[_T]] = {}
    before = 0
    for item, size in zip(items, sizes, strict=True):
        groups.setdefault(before // limit, []).append(item)
        before += size
    return list(groups.values())
