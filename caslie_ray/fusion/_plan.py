"""What `fuse` would write, and whether it fits the base's context; nothing is written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from zlib import crc32

from caslie_ray.cluster.distribution import is_large
from caslie_ray.cluster.partition_map import map_partitions
from caslie_ray.context_window import MOST_FILES, ContextCheck, FitCounts, describe_fit, evenly
from caslie_ray.errors import RunError
from caslie_ray.fusion._instructions import instructions_of
from caslie_ray.fusion._partition import check_fit
from caslie_ray.fusion._variants import VARIANTS, Captioned
from caslie_ray.profiles import Model, Profile
from caslie_ray.storage.run import Run

__all__ = ["plan_fusion"]

_COLUMNS = ["view_id", "caption", "verdict"]


def plan_fusion(run: Run, profile: Profile) -> list[str]:
    """Return what `fuse` would write, as lines, and once there are captions whether it fits the base's context.

    Raises:
        RunError: there are no samples, or a file is damaged.
    """
    if not run.files("samples"):
        raise RunError(f"{run.label} has no samples: run ingest first")
    samples = sum(run.count_rows(path) for path in run.files("samples"))
    captions = sum(run.count_rows(path) for path in run.files("captions"))
    fit = [f"fit           {_plan_fit(run, profile.lineup.base, samples)}"] if captions else []
    return [
        f"samples       {samples:,}",
        f"captions      {captions:,}",
        f"instructions  {samples * len(VARIANTS):,} ({', '.join(VARIANTS)})",
        *fit,
        "models        none",
    ]


class _Task(NamedTuple):
    partition: str
    samples: Sequence[str]
    captions: Sequence[str]


def _plan_fit(run: Run, base: Model, total: int) -> str:
    """Return whether the instructions of `total` samples fit, from at most `MOST_FILES` partitions.

    In a large run each partition is measured with the captions of one file, whatever views they are of.
    """
    listed, files = run.by_partition("samples"), run.files("captions")
    chosen = evenly(sorted(listed), MOST_FILES)
    large = is_large(run, (*files, *(path for paths in listed.values() for path in paths)))
    if large:
        some = evenly(files, MOST_FILES)
        tasks = [_Task(name, listed[name], [path]) for name, path in zip(chosen, itertools.cycle(some), strict=False)]
        counts, read = FitCounts(), 0
        for one, rows in map_partitions(lambda task: _measure(run, base, task), tasks, distributed=True):
            counts.add(one)
            read += rows
    else:
        known = {row["view_id"]: row for row in run.read("captions", _COLUMNS).to_pylist()}
        check, read = ContextCheck(base), 0
        for name in chosen:
            read += _check(check, run, _Task(name, listed[name], ()), known.get)
        counts = check.counts
    if not read or (len(chosen) == len(listed) and not large):
        return describe_fit(counts.summary(base))
    part = f" ({len(chosen)} of {len(listed):,} partitions were read)"
    return describe_fit(counts.summary(base, total / read), estimated=True) + part


def _measure(run: Run, base: Model, task: _Task) -> tuple[FitCounts, int]:
    """Count the instructions of a partition and its samples; each view has one of the captions of the task's files."""
    captions = [row for path in task.captions for row in run.read_file(path, _COLUMNS).to_pylist()]
    check = ContextCheck(base)
    read = _check(check, run, task, lambda view: captions[crc32(view.encode()) % len(captions)] if captions else None)
    return check.counts, read


def _check(check: ContextCheck, run: Run, task: _Task, find: Callable[[str], Mapping[str, Any] | None]) -> int:
    samples = run.with_file_listing({"samples": task.samples}).read("samples", partition=task.partition).to_pylist()
    for sample in samples:
        if not sample["output"]:
            continue
        rows = ((view, find(view)) for view in sample["view_ids"] or () if view)
        views = {view: Captioned(row["caption"], bool(row["verdict"])) for view, row in rows if row}
        for instruction in instructions_of(sample, views):
            check_fit(check, instruction)
    return len(samples)
