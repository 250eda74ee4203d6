"""Deduplication on read: the last row of each id."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["latest_rows"]


def latest_rows(rows: pa.Table, ids: Sequence[str]) -> pa.Table:
    """Keep the last row of each id; the order of the kept rows does not change.

    Args:
        rows: oldest first.
        ids: the columns that together name a row; without any, all rows are kept.
    """
    if not ids or rows.num_rows < 2:
        return rows
    numbered = rows.select(ids).append_column("row", pa.array(range(rows.num_rows), pa.int64()))
    last = numbered.group_by(list(ids)).aggregate([("row", "max")])["row_max"]
    if len(last) == rows.num_rows:
        return rows
    return rows.take(last.take(pc.sort_indices(last)))
