"""The sample of views that a plan times: copied to a scratch run, in three parts per partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.captioning._ledger import KEPT, load_ledger
from caslie_ray.captioning._partition_status import PartitionStatus
from caslie_ray.captioning._voting import advance
from caslie_ray.pipeline.placement import PoolPlan
from caslie_ray.roles import ResolvedLineup, Role
from caslie_ray.storage.run import Run

__all__ = ["LONG", "PARTS", "SHORT", "fill_sample", "part_sizes", "sampled_partitions"]

_WARM_UP, SHORT, LONG = "w", "x", "y"
"""Prefixes of the sample's partition names, which no run has. The warm-up starts every process; the difference between
the long and the short part is free of a pass's fixed cost."""

PARTS = (_WARM_UP, SHORT, LONG)
# Views per partition in each part; more on GPUs, see `part_sizes`.
_FEW, _MANY = 2, 32
_MAX_PARTITIONS = 16


def fill_sample(
    scratch: Run, run: Run, lineup: ResolvedLineup, statuses: Sequence[PartitionStatus], partitions: int
) -> None:
    """Copy a sample of the views that wait for a model, with their images and known answers, to a scratch run."""
    for status in sorted(statuses, key=lambda status: -sum(status.waits.values()))[:partitions]:
        pending = _waiting_views(run, status.partition, lineup)
        for part, count in zip(PARTS, part_sizes(lineup.roles, len(pending)), strict=True):
            taken, pending = pending[:count], pending[count:]
            if taken:
                _copy_views(scratch, run, status.partition, f"{part}{status.partition}", taken, lineup)


def part_sizes(roles: Sequence[Role], pending: int) -> tuple[int, int, int]:
    """Return how many of a partition's views each part of the sample gets.

    On a GPU half a batch takes about as long as a full one. There the long part fills the largest batch and the short
    part fills one of the first role, the captioner, if the partition has enough views: their difference is then the
    time of full batches.
    """
    first, *_ = roles
    short = first.spec.batch_size if first.resources.gpus else _FEW
    long = max([_MANY, *(role.spec.batch_size for role in roles if role.resources.gpus)])
    rest = pending - _FEW
    return _FEW, max(_FEW, min(short, rest // 3)), max(long, 2 * short)


def sampled_partitions(minimum: Mapping[str | None, Sequence[PoolPlan]]) -> int:
    """Return how many partitions are sampled: one per timed replica and one more, so that all have work."""
    replicas = max(sum(pool.limit for pool in pools) for pools in minimum.values())
    return max(2, min(replicas + 1, _MAX_PARTITIONS))


def _waiting_views(run: Run, partition: str, lineup: ResolvedLineup) -> list[str]:
    """Return the ids of a partition's views that wait for a model."""
    ledger = load_ledger(run, partition, lineup, lineup.names)
    return [row.view.view_id for row in advance(ledger.views, lineup, ledger.known) if row.waits_for]


def _copy_views(
    scratch: Run, run: Run, partition: str, name: str, view_ids: Sequence[str], lineup: ResolvedLineup
) -> None:
    chosen = pa.array(view_ids, pa.string())
    views = run.read("views", partition=partition)
    views = views.filter(pc.is_in(views["view_id"], value_set=chosen))
    scratch.write("views", name, views)
    where = pc.field("image_id").isin(views["image_id"].unique().to_pylist())
    images = [run.read_file(path, where=where) for path in run.files("images", partition)]
    if images:
        scratch.write("images", name, pa.concat_tables(images))
    for path in run.files("captions", partition):
        rows = run.read_file(path)
        rows = rows.filter(pc.is_in(rows["view_id"], value_set=chosen))
        if rows.num_rows:
            scratch.write("captions", name, rows)
    for folder in (KEPT, *(role.answers for role in lineup.roles)):
        for number, path in enumerate(run.files(folder, partition)):
            target = scratch.path(folder, f"{name}-{number:06d}.parquet")
            scratch.put(target, run.read_bytes(path))
