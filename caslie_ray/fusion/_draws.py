"""The variant `shuffled`: of each task and split, as many captions as have a verdict of yes, drawn by lot.

A view's lot is a hash of its id. Drawn are the lowest lots, up to a threshold per task and split, which is found from
counts. A view that samples of several splits ask for is drawn in that of its first sample.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.fusion._variants import SHUFFLED
from caslie_ray.fusion._workspace import Workspace
from caslie_ray.hashing import content_id
from caslie_ray.storage.latest_rows import latest_rows
from caslie_ray.storage.shuffle import read_bucket, write_buckets

__all__ = ["Thresholds", "find_thresholds", "write_draws"]

Place = tuple[str, str]
Thresholds = Mapping[Place, int]
"""The highest lot that is drawn, by task and split; none is drawn elsewhere."""

_BITS = 12
_BINS = 1 << _BITS


class _Counts(NamedTuple):
    wanted: int
    bins: npt.NDArray[np.int64]


def write_draws(space: Workspace, bucket: int, rows: pa.Table) -> pa.Table:
    """Write the lots of the captioned views among joined rows; return the rows with their lots.

    Raises:
        RunError: the store refuses.
    """
    lots = [int(content_id(SHUFFLED, view_id)[:16], 16) for view_id in rows["view_id"].to_pylist()]
    rows = rows.set_column(rows.schema.get_field_index("draw"), "draw", pa.array(lots, pa.uint64()))
    captioned = rows.filter(pc.greater(pc.binary_length(rows["caption"]), 0))
    once = latest_rows(captioned.select(["view_id", "task", "split", "draw", "verdict"]), ["view_id"])
    write_buckets(space.run, space.draws(bucket), once.drop(["view_id"]), np.zeros(once.num_rows, np.int64), 1)
    return rows


def find_thresholds(space: Workspace, in_tasks: Callable[[Callable[[int], Any]], Iterable[Any]]) -> Thresholds:
    """Return the thresholds up to which lots are drawn.

    Args:
        space: holds the lots.
        in_tasks: calls a function with every bucket and yields its results, in any order.
    """
    totals: dict[Place, _Counts] = {}
    for counts in in_tasks(lambda bucket: _count(space, bucket)):
        for place, (wanted, bins) in counts.items():
            before = totals.get(place, _Counts(0, np.zeros(_BINS, np.int64)))
            totals[place] = _Counts(before.wanted + wanted, before.bins + bins)
    last: dict[Place, int] = {}
    left: dict[Place, int] = {}
    for place, (wanted, bins) in totals.items():
        if wanted:
            sums = np.cumsum(bins)
            last[place] = int(np.searchsorted(sums, wanted))
            left[place] = wanted - int(sums[last[place]] - bins[last[place]])
    lots: dict[Place, list[int]] = defaultdict(list)
    for found in in_tasks(lambda bucket: _lots_in(space, bucket, last)):
        for place, some in found.items():
            lots[place] += some
    return {place: sorted(lots[place])[count - 1] for place, count in left.items()}


def _count(space: Workspace, bucket: int) -> dict[Place, _Counts]:
    """Count lots by their first bits, and verdicts of yes."""
    return {
        place: _Counts(
            int(pc.sum(rows["verdict"]).as_py() or 0),
            np.bincount((rows["draw"].to_numpy() >> np.uint64(64 - _BITS)).astype(np.int64), minlength=_BINS),
        )
        for place, rows in _by_place(space, bucket)
    }


def _lots_in(space: Workspace, bucket: int, bins: Mapping[Place, int]) -> dict[Place, list[int]]:
    """Return the lots in one bin of each place: few, one in some thousands."""
    found = {}
    for place, rows in _by_place(space, bucket):
        if place in bins:
            lots = rows["draw"].to_numpy()
            found[place] = lots[lots >> np.uint64(64 - _BITS) == bins[place]].tolist()
    return found


def _by_place(space: Workspace, bucket: int) -> Iterable[tuple[Place, pa.Table]]:
    rows = read_bucket(space.run, space.draws(bucket), 0)
    for place in rows.group_by(["task", "split"]).aggregate([]).to_pylist():
        chosen = (pc.field("task") == place["task"]) & (pc.field("split") == place["split"])
        yield (place["task"], place["split"]), rows.filter(chosen)
