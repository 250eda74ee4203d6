"""What a caption job would do, how long it would take and what it would cost, before it is paid for."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.captioning._job import CaptionJob
from caslie_ray.captioning._ledger import KEPT, PartitionState
from caslie_ray.captioning._work import WorkOrder
from caslie_ray.cluster.capacity import capacity
from caslie_ray.cluster.connection import connect
from caslie_ray.context_window import caption_room
from caslie_ray.engines.memory import describe, usable_gib
from caslie_ray.errors import RunError
from caslie_ray.monitoring.progress import clock
from caslie_ray.monitoring.progress_monitor import ProgressMonitor
from caslie_ray.pipeline.placement import PoolPlan, pool_plans, size_pools
from caslie_ray.pipeline.pools import Pools
from caslie_ray.profiles import Profile
from caslie_ray.roles import Role
from caslie_ray.storage.run import Run

__all__ = ["CaptionPlan", "plan_captions"]

# How the partitions of the sample begin (none of a run does): the first part gets every process going, the second
# shows what a pass takes however few its views are.
_WARM, _SHORT, _LONG = "w", "x", "y"
_PARTS = (_WARM, _SHORT, _LONG)
# Views of a partition in each part; more on GPUs, see `_part_sizes`.
_FEW, _MANY = 2, 32
_MOST_PARTITIONS = 16


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
        engines: one line a model: what runs it, and why where the profile leaves that open.
        replicas: upper limit of the replicas of each model, by name; the time is that of so many.
        replicas_unknown: whether some of these are a guess, since it is not known how far the cluster can grow.
        room: how much of the base's context captions may take; None where none are generated.
        memory: one line per model on a GPU whose configuration can be read: the memory of a replica.
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
    engines: list[str] = field(default_factory=list)
    replicas: dict[str, int] = field(default_factory=dict)
    replicas_unknown: bool = False
    room: str | None = None
    memory: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the plan as a person reads it."""
        saved = f" ({self.repeats_saved:,} repeats saved)" if self.repeats_saved is not None else ""
        lines = [
            f"views        {self.views:,}{saved}",
            f"in the run   {self.held:,}",
            f"to compute   {self.missing:,}",
        ]
        lines += [f"{'' if number else 'engines':<12} {line}" for number, line in enumerate(self.engines)]
        if self.room is not None:
            lines.append(f"captions in a prompt   {self.room}")
        lines += [f"{'' if number else 'GPU memory':<12} {line}" for number, line in enumerate(self.memory)]
        if self.replicas:
            up_to = "up to " if self.replicas_unknown else ""
            lines.append(f"replicas     {up_to}{' · '.join(f'{name} {most}' for name, most in self.replicas.items())}")
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
    states = job.survey(job.lineup.names)
    survey_s = time.monotonic() - begun
    missing = sum(state.missing for state in states)
    views = sum(state.views for state in states)
    summary = run.read_json("summary/ingest.json") or {}
    plan = CaptionPlan(views, summary.get("repeated_views"), views - missing, missing, engines=job.lineup.engines())
    if captioner := job.lineup.captioner:
        plan.room = caption_room(run, profile.lineup.base, captioner.spec.max_new_tokens, job.lineup.caption_words)
    plan.memory = _memory(job)
    waiting = [state for state in states if state.waits]
    if waiting:
        _time(plan, run, job, waiting)
    if missing:
        plan.seconds = (plan.seconds or 0.0) + survey_s
    else:
        plan.seconds = 0.0
    if profile.cost.hour_usd:
        plan.usd = plan.seconds / 3600 * profile.cost.hour_usd
    return plan


def _memory(job: CaptionJob) -> list[str]:
    card = usable_gib()
    pools = {role.pool: role for role in reversed(job.lineup.roles)}  # roles that share a checkpoint share a replica
    lines = (describe(role.name, role.spec, card) for role in reversed(pools.values()))
    return [line for line in lines if line is not None]


def _time(plan: CaptionPlan, run: Run, job: CaptionJob, waiting: Sequence[PartitionState]) -> None:
    """Caption a sample in a scratch run, and work out from it what the views that wait for a model take.

    Pools without an upper limit are timed with the minimum of replicas, and their time is scaled: see `_speedup`.
    """
    limits = capacity(connect())
    least = _sized(job, 0, limits)
    planned = _sized(job, plan.missing, limits)
    plan.replicas = {pool.name: pool.limit for pools in planned.values() for pool in pools}
    unlimited = any(pool.maximum is None for roles in _together(job).values() for pool in pool_plans(roles))
    plan.replicas_unknown = limits is None and unlimited
    scratch = run.below(f"plan-{uuid.uuid4().hex[:8]}")
    try:
        _fill(scratch, run, job, waiting, _sampled(least))
        timed = _TimedJob(scratch, job.profile, job.quiet)
        timed.whole = plan.missing
        begun = time.monotonic()
        result = timed.execute()
        whole = time.monotonic() - begun
    finally:
        scratch.delete_folder(scratch.root)
    if result.missing:
        raise RunError(f"the plan could not be timed: {result.missing} of its views have no row")
    plan.timed = result.summary["views"]
    views = sum(state.waits.total() for state in waiting)
    share = views / plan.timed
    speedups = {stage: _speedup(least[stage], planned[stage]) for stage in least}
    # The rest of a job's time does not grow with the views: Ray's start, loading, first calls.
    measured = sum(seconds[part] for seconds in timed.seconds.values() for part in (_SHORT, _LONG))
    plan.seconds = whole - measured + _seconds_a_view(timed.seconds, timed.views, speedups) * views
    plan.calls = {name: round(count * share) for name, count in _calls(timed).items()}
    plan.tokens = round(sum(s.prompt_tokens + s.new_tokens for s in timed.pools.values()) * share)


def _together(job: CaptionJob) -> dict[str | None, Sequence[Role]]:
    """Return the roles whose pools run at once, by `WorkOrder.stage`."""
    if job.profile.schedule == "staged":
        return {stage: job.lineup.roles_of_stage(stage) for stage in job.lineup.stages}
    return {None: job.lineup.roles}


def _sized(job: CaptionJob, rows: int, limits: Mapping[str, float] | None) -> dict[str | None, list[PoolPlan]]:
    """Return the pools of each stage as they are for so many rows; for none, with no more than their minimum."""
    return {stage: size_pools(pool_plans(roles), rows, limits) for stage, roles in _together(job).items()}


def _speedup(timed: Sequence[PoolPlan], planned: Sequence[PoolPlan]) -> float:
    """Return how many times as fast a stage is with the planned replicas as with those that were timed.

    The first pool decides: it is the captioner's, the slowest by far.
    """
    return planned[0].limit / timed[0].limit


def _seconds_a_view(
    seconds: Mapping[str | None, Mapping[str, float]], views: Mapping[str, int], speedups: Mapping[str | None, float]
) -> float:
    """Return what one more view takes, in all stages, with the planned replicas.

    Args:
        seconds: what each part of the sample took, by stage and part.
        views: views of each part.
        speedups: see `_speedup`, by stage.
    """
    short, long = (sum(took[part] / speedups[stage] for stage, took in seconds.items()) for part in (_SHORT, _LONG))
    more = views[_LONG] - views[_SHORT]
    if more > 0 and long > short:
        return (long - short) / more
    together = views[_LONG] + views[_SHORT]
    return (long + short) / together if together else 0.0


def _calls(job: CaptionJob) -> dict[str, int]:
    return {stats.name: stats.requests for stats in job.pools.values()}


class _TimedJob(CaptionJob):
    """A caption job that takes its time, apart from what it takes to get going.

    Attributes:
        whole: views of the job that it stands for.
        views: views of each part of the sample.
        seconds: what each part took, by stage and part.
    """

    whole: int = 0
    views: dict[str, int]
    seconds: dict[str | None, dict[str, float]]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.views = dict.fromkeys(_PARTS, 0)
        self.seconds = {}
        for path in self.run.files("views"):
            self.views[self.run.partition(path)[0]] += self.run.count_rows(path)

    def _pool_rows(self, total: int) -> int:
        return 0

    def _job_rows(self, total: int) -> int:
        return self.whole

    def _passes(
        self,
        order: WorkOrder,
        pools: Pools,
        states: Sequence[PartitionState],
        watch: ProgressMonitor,
        left: Callable[[PartitionState], int],
    ) -> None:
        took = self.seconds.setdefault(order.stage, dict.fromkeys(_PARTS, 0.0))
        for part in _PARTS:
            begun = time.monotonic()
            super()._passes(order, pools, [s for s in states if s.partition.startswith(part)], watch, left)
            took[part] += time.monotonic() - begun


def _fill(scratch: Run, run: Run, job: CaptionJob, states: Sequence[PartitionState], partitions: int) -> None:
    """Copy a sample of the views that wait for a model, with what the run knows of them."""
    for state in sorted(states, key=lambda state: -sum(state.waits.values()))[:partitions]:
        pending = job.waiting(state.partition)
        for part, count in zip(_PARTS, _part_sizes(job.lineup.roles, len(pending)), strict=True):
            taken, pending = pending[:count], pending[count:]
            if taken:
                _copy(scratch, run, state.partition, f"{part}{state.partition}", taken, job)


def _part_sizes(roles: Sequence[Role], pending: int) -> tuple[int, int, int]:
    """Return how many of a partition's views each part of the sample takes.

    On a GPU half a batch takes about as long as a whole one. So the long part fills the largest batch there, and the
    short part one of the first role, the captioner, as far as the partition has views: what the long part takes beyond
    the short one is then the time of full batches.
    """
    first, *_ = roles
    short = first.spec.batch_size if first.resources.gpus else _FEW
    long = max([_MANY, *(role.spec.batch_size for role in roles if role.resources.gpus)])
    rest = pending - _FEW
    return _FEW, max(_FEW, min(short, rest // 3)), max(long, 2 * short)


def _sampled(least: Mapping[str | None, Sequence[PoolPlan]]) -> int:
    """Return how many partitions a sample is taken from: one per replica that is timed, so that all have work."""
    replicas = max(sum(pool.limit for pool in pools) for pools in least.values())
    return max(2, min(replicas + 1, _MOST_PARTITIONS))


def _copy(scratch: Run, run: Run, partition: str, name: str, view_ids: Sequence[str], job: CaptionJob) -> None:
    wanted = pa.array(view_ids, pa.string())
    views = run.read("views", partition=partition)
    views = views.filter(pc.is_in(views["view_id"], value_set=wanted))
    scratch.write("views", name, views)
    pictures = pc.field("image_id").isin(views["image_id"].unique().to_pylist())
    images = [run.read_file(path, where=pictures) for path in run.files("images", partition)]
    if images:
        scratch.write("images", name, pa.concat_tables(images))
    for path in run.files("captions", partition):
        rows = run.read_file(path)
        rows = rows.filter(pc.is_in(rows["view_id"], value_set=wanted))
        if rows.num_rows:
            scratch.write("captions", name, rows)
    for folder in (KEPT, *(role.answers for role in job.lineup.roles)):
        for number, path in enumerate(run.files(folder, partition)):
            target = scratch.path(folder, f"{name}-{number:06d}.parquet")
            scratch.put(target, run.read_bytes(path))
