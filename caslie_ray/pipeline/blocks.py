"""Blocks of work as single Ray Data rows.

Ray Data splits and merges blocks by bytes, and asks for an integer batch size on GPUs. A block of work must keep its
rows together: it is the unit of batching, of retries and of files. So each block travels as one row: the Arrow IPC
bytes of its table, or the reason why it failed.
"""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

__all__ = ["Failed", "pack", "pack_failure", "unpack"]

_SCHEMA = pa.schema(
    [("rows", pa.int64()), ("block", pa.large_binary()), ("failure", pa.string()), ("down", pa.bool_())]
)


class Failed(NamedTuple):
    """Why a block went no further.

    Attributes:
        reason: for the user.
        down: whether a model that the job needs cannot be kept alive; otherwise a store or the code failed.
    """

    reason: str
    down: bool


def pack(block: pa.Table) -> pa.Table:
    """Return a block as one row."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, block.schema) as stream:
        stream.write_table(block)
    encoded = sink.getvalue()
    ends = pa.array([0, encoded.size], pa.int64()).buffers()[1]
    data = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, encoded])
    return pa.table([[block.num_rows], data, [None], [False]], schema=_SCHEMA)


def pack_failure(failed: Failed) -> pa.Table:
    """Return a failed block as one row."""
    return pa.table([[0], pa.array([None], pa.large_binary()), [failed.reason], [failed.down]], schema=_SCHEMA)


def unpack(row: pa.Table) -> pa.Table | Failed:
    """Return the block in a row, without a copy of its bytes, or why it failed."""
    failure = row["failure"][0].as_py()
    if failure is not None:
        return Failed(failure, row["down"][0].as_py())
    return pa.ipc.open_stream(row["block"][0].as_buffer()).read_all()
