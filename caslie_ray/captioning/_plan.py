"""What a caption job would do, how long it would take and what it would cost, before it is paid for."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from caslie_ray.captioning._job import CaptionJob
from caslie_ray.captioning._ledger import PartitionState
from caslie_ray.captioning._work import WorkOrder
from caslie_ray.profiles import Profile
from caslie_ray.progress import Progress, clock
from caslie_ray.runs import Run, open_run

__all__ = ["CaptionPlan", "plan_captions"]

_WARM_VIEWS = 2
_TIMED_VIEWS = 32


class _Stage(NamedTuple):
    """One timed stage: `warm_s` until its processes ran at all, then `seconds` for `views`."""

    name: str | None
    warm_s: float
    seconds: float
    views: int


@dataclass
class CaptionPlan:
    """What is to be done.

    Attributes:
        views: distinct views of the run, and how many repeats of a view were saved.
        held: views whose row the run holds already.
        missing: views that are to be computed.
        timed: how many of them were captioned and voted on, for the figures below.
        calls: expected calls of each model; at most where nothing was timed.
        tokens: expected tokens, read and written.
        seconds: how long the job will take, its start included; None where nothing was timed.
        usd: its price; None where the profile has none.
    """

    views: int
    repeats_saved: int | None
    held: int
    missing: int
    timed: int = 0
    calls: dict[str, int] = field(default_factory=dict)
    tokens: int | None = None
    seconds: float | None = None
    usd: float | None = None

    def lines(self) -> list[str]:
        """Return the plan as a person reads it."""
        saved = f" ({self.repeats_saved:,} repeats saved)" if self.repeats_saved is not None else ""
        lines = [
            f"views        {self.views:,}{saved}",
            f"in the run   {self.held:,}",
            f"to compute   {self.missing:,}",
        ]
        if not self.missing:
            return [*lines, "nothing to do: no model is loaded"]
        word = "about" if self.timed else "at most"
        lines += [f"calls        {word} {sum(self.calls.values()):,}"]
        lines += [f"  {name:<10} {calls:,}" for name, calls in self.calls.items()]
        if self.seconds is not None and self.tokens is not None:
            lines += [f"tokens       about {self.tokens:,}", f"time         about {clock(self.seconds)}"]
            lines += [f"hours        {self.seconds / 3600:.3f} (from {self.timed} views that were timed)"]
        lines.append(f"cost         ${self.usd:,.2f}" if self.usd is not None else "cost         set cost.hour_usd")
        return lines


def plan_captions(run: Run, profile: Profile, *, quiet: bool = False) -> CaptionPlan:
    """Survey a run and time a small sample of what it lacks; the run itself is not changed.

    Raises:
        RunError: the run has no views.
        EngineError: a model cannot be loaded.
    """
    begun = time.monotonic()
    job = CaptionJob(run, profile, quiet)
    everyone = [role.name for role in job.lineup.roles]
    states = job.survey(everyone)
    survey_s = time.monotonic() - begun
    missing = sum(state.missing for state in states)
    views = sum(state.views for state in states)
    summary = run.read_json("summary/ingest.json") or {}
    plan = CaptionPlan(views, summary.get("repeated_views"), views - missing, missing)
    waiting = [state for state in states if state.waits]
    if not waiting:
        plan.seconds = survey_s if missing else 0.0
        return plan
    scratch = open_run(f"{run.uri.rstrip('/')}/plan-{uuid.uuid4().hex[:8]}")
    try:
        _fill(scratch, run, job, waiting)
        timed = _TimedJob(scratch, profile, quiet)
        begun = time.monotonic()
        result = timed.execute()
        whole = time.monotonic() - begun
    finally:
        scratch.fs.delete_dir(scratch.root)
    plan.timed = result.summary["views"]
    # The rest of a job's time does not grow with the views: Ray's start, loading, first calls.
    fixed = whole - sum(stage.seconds for stage in timed.stages) + survey_s
    share = missing / plan.timed
    each = sum(stage.seconds / stage.views * _reach(stage, plan.timed) for stage in timed.stages)
    plan.seconds = fixed + each * missing
    plan.calls = {name: round(count * share) for name, count in _calls(timed).items()}
    plan.tokens = round(sum(s.prompt_tokens + s.new_tokens for s in timed.pools.values()) * share)
    if profile.cost.hour_usd:
        plan.usd = plan.seconds / 3600 * profile.cost.hour_usd
    return plan


def _reach(stage: _Stage, timed: int) -> float:
    """Share of the views that come to a stage."""
    return 1.0 if stage.name is None else min(1.0, stage.views / timed)


def _calls(job: CaptionJob) -> dict[str, int]:
    return {stats.name: stats.requests for stats in job.pools.values()}


class _TimedJob(CaptionJob):
    """A caption job that takes its time, apart from what it takes to get going."""

    stages: list[_Stage]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.stages = []

    def _passes(
        self,
        order: WorkOrder,
        router: Any,
        states: Sequence[PartitionState],
        progress: Progress,
        left: Callable[[PartitionState], int],
    ) -> None:
        warm = [state for state in states if state.partition.startswith("w")]
        rest = [state for state in states if not state.partition.startswith("w")]
        begun = time.monotonic()
        super()._passes(order, router, warm, progress, left)
        between = time.monotonic()
        super()._passes(order, router, rest, progress, left)
        views = sum(map(left, rest))
        if views:
            self.stages.append(_Stage(order.stage, between - begun, time.monotonic() - between, views))


def _fill(scratch: Run, run: Run, job: CaptionJob, states: Sequence[PartitionState]) -> None:
    """Copy a sample of the views that wait for a model, with what the run knows of them."""
    tasks = max(2, sum(role.replicas.max for role in job.lineup.roles) + 1)
    for state in sorted(states, key=lambda state: -sum(state.waits.values()))[:tasks]:
        pending = job.waiting(state.partition)[: _WARM_VIEWS + _TIMED_VIEWS]
        for name, ids in (
            (f"w{state.partition}", pending[:_WARM_VIEWS]),
            (state.partition, pending[_WARM_VIEWS:]),
        ):
            if ids:
                _copy(scratch, run, state.partition, name, ids, job)


def _copy(scratch: Run, run: Run, partition: str, name: str, view_ids: Sequence[str], job: CaptionJob) -> None:
    wanted = pa.array(view_ids, pa.string())
    views = run.read("views", partition=partition)
    views = views.filter(pc.is_in(views["view_id"], value_set=wanted))
    scratch.write("views", name, views)
    images = run.read("images", partition=partition)
    scratch.write("images", name, images.filter(pc.is_in(images["image_id"], value_set=views["image_id"].unique())))
    for path in run.files("captions", partition):
        rows = run.read_file(path)
        rows = rows.filter(pc.is_in(rows["view_id"], value_set=wanted))
        if rows.num_rows:
            scratch.write("captions", name, rows)
    for role in job.lineup.roles:
        for number, path in enumerate(run.files(role.answers, partition)):
            target = scratch.path(role.answers, f"{name}-{number}.parquet")
            scratch.fs.create_dir(scratch.path(role.answers), recursive=True)
            pafs.copy_files(path, target, source_filesystem=run.fs, destination_filesystem=scratch.fs)
