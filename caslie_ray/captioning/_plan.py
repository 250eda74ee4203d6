"""`caption --plan`: what a job would compute, how long it would take and what it would cost, from a timed sample."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence

from caslie_ray.captioning._caption_plan import CaptionPlan
from caslie_ray.captioning._job import CaptionJob
from caslie_ray.captioning._partition_status import PartitionStatus
from caslie_ray.captioning._plan_sample import LONG, SHORT, fill_sample, sampled_partitions
from caslie_ray.captioning._timed_job import TimedJob
from caslie_ray.cluster.capacity import capacity
from caslie_ray.cluster.connection import connect
from caslie_ray.context_window import caption_room
from caslie_ray.errors import RunError
from caslie_ray.pipeline.placement import PoolPlan, pool_plans, size_pools
from caslie_ray.profiles import Profile
from caslie_ray.roles import Role
from caslie_ray.storage.run import Run

__all__ = ["CaptionPlan", "plan_captions", "seconds_per_view", "speedup"]


def plan_captions(run: Run, profile: Profile, *, quiet: bool = False) -> CaptionPlan:
    """Survey a run and time a small sample of what it lacks; the run's tables are not changed.

    Raises:
        RunError: the run has no views.
        EngineError: a model cannot be loaded.
    """
    start = time.monotonic()
    job = CaptionJob(run, profile, quiet)
    statuses = job.partitions.survey(job.lineup.names)
    survey_s = time.monotonic() - start
    missing = sum(status.missing for status in statuses)
    views = sum(status.views for status in statuses)
    summary = run.read_json("summary/ingest.json") or {}
    plan = CaptionPlan(views, summary.get("repeated_views"), views - missing, missing, engines=job.lineup.engines())
    if captioner := job.lineup.captioner:
        plan.room = caption_room(run, profile.lineup.base, captioner.spec.max_new_tokens, job.lineup.caption_words)
    plan.memory = _memory(job)
    waiting = [status for status in statuses if status.waits]
    if waiting:
        _time_sample(plan, run, job, waiting)
    if missing:
        plan.seconds = (plan.seconds or 0.0) + survey_s
    else:
        plan.seconds = 0.0
    if profile.cost.hour_usd:
        plan.usd = plan.seconds / 3600 * profile.cost.hour_usd
    return plan


def _memory(job: CaptionJob) -> list[str]:
    from caslie_ray.engines.memory import describe, usable_gib  # imports torch, which no actor of a chain needs

    gpu_gib = usable_gib()
    pools = {role.pool: role for role in reversed(job.lineup.roles)}  # one per checkpoint
    lines = (describe(role.name, role.spec, gpu_gib) for role in reversed(pools.values()))
    return [line for line in lines if line is not None]


def _time_sample(plan: CaptionPlan, run: Run, job: CaptionJob, waiting: Sequence[PartitionStatus]) -> None:
    """Caption a sample in a scratch run, and extrapolate to the views that wait for a model.

    Pools without an upper limit are timed with the minimum of replicas, and their time is scaled: see `speedup`.
    """
    limits = capacity(connect())
    minimum = _sized(job, 0, limits)
    planned = _sized(job, plan.missing, limits)
    plan.replicas = {pool.name: pool.limit for pools in planned.values() for pool in pools}
    unlimited = any(pool.maximum is None for roles in _concurrent_roles(job).values() for pool in pool_plans(roles))
    plan.replicas_unknown = limits is None and unlimited
    scratch = run.below(f"plan-{uuid.uuid4().hex[:8]}")
    try:
        fill_sample(scratch, run, job.lineup, waiting, sampled_partitions(minimum))
        timed = TimedJob(scratch, job.profile, job.quiet)
        timed.planned_views = plan.missing
        start = time.monotonic()
        result = timed.execute()
        total_s = time.monotonic() - start
    finally:
        scratch.delete_folder(scratch.root)
    if result.missing:
        raise RunError(f"the plan could not be timed: {result.missing} of its views have no row")
    plan.timed = result.summary["views"]
    views = sum(status.waits.total() for status in waiting)
    scale = views / plan.timed
    speedups = {stage: speedup(minimum[stage], planned[stage]) for stage in minimum}
    # The rest does not grow with the views: Ray's start, loading, first calls.
    measured_s = sum(seconds[part] for seconds in timed.seconds.values() for part in (SHORT, LONG))
    plan.seconds = total_s - measured_s + seconds_per_view(timed.seconds, timed.views, speedups) * views
    plan.calls = {stats.name: round(stats.requests * scale) for stats in timed.pools.values()}
    plan.tokens = round(sum(stats.prompt_tokens + stats.new_tokens for stats in timed.pools.values()) * scale)


def _concurrent_roles(job: CaptionJob) -> dict[str | None, Sequence[Role]]:
    """Return the roles whose pools run at the same time, by `CaptionWork.stage`."""
    if job.profile.schedule == "staged":
        return {stage: job.lineup.roles_of_stage(stage) for stage in job.lineup.stages}
    return {None: job.lineup.roles}


def _sized(job: CaptionJob, rows: int, limits: Mapping[str, float] | None) -> dict[str | None, list[PoolPlan]]:
    """Return the pools of each stage, sized for a number of rows; with 0 rows, unlimited pools get their minimum."""
    return {stage: size_pools(pool_plans(roles), rows, limits) for stage, roles in _concurrent_roles(job).items()}


def speedup(timed: Sequence[PoolPlan], planned: Sequence[PoolPlan]) -> float:
    """Return the speed-up of a stage with the planned replicas over the timed ones.

    It is that of the first pool, the captioner's, which is by far the slowest.
    """
    return planned[0].limit / timed[0].limit


def seconds_per_view(
    seconds: Mapping[str | None, Mapping[str, float]], views: Mapping[str, int], speedups: Mapping[str | None, float]
) -> float:
    """Return the seconds that one more view takes in all stages, with the planned replicas.

    Args:
        seconds: duration of the sample, by stage and part.
        views: views of the sample by part.
        speedups: see `speedup`, by stage.
    """
    short, long = (sum(parts[part] / speedups[stage] for stage, parts in seconds.items()) for part in (SHORT, LONG))
    difference = views[LONG] - views[SHORT]
    if difference > 0 and long > short:
        return (long - short) / difference
    total = views[LONG] + views[SHORT]
    return (long + short) / total if total else 0.0
