"""The job's own time per view and memory by number of views, measured with the null engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from caslie_ray.benchmark._caption_job import Job, JobResult
from caslie_ray.benchmark._fabricate import fabricate
from caslie_ray.benchmark._null_engine import NULL_ENGINE
from caslie_ray.benchmark._timing import steady_seconds
from caslie_ray.profiles import Profile, load_profile
from caslie_ray.storage.run import Run

__all__ = ["FULL_SIZES", "QUICK_SIZES", "Scaled", "null_profile", "scale_job", "scaled"]

FULL_SIZES = (1_000, 5_000, 20_000)
QUICK_SIZES = (100, 300)
_DIGITS = 1
_VOTERS = 3


@dataclass(frozen=True)
class Scaled:
    """Measurements at one number of views.

    Attributes:
        views: number of views.
        ms_a_view: wall-clock milliseconds per view in steady state; None if unknown.
        cpu_ms_a_view: CPU milliseconds of all processes per view, from the first row to the last.
        seconds: total, including start-up.
        memory_mib: peaks of driver, workers, ray and object_store.
        reason: why it failed; empty if it did not.
    """

    views: int
    ms_a_view: float | None
    cpu_ms_a_view: float | None
    seconds: float
    memory_mib: Mapping[str, float | None]
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "views": self.views, "ms_a_view": self.ms_a_view, "cpu_ms_a_view": self.cpu_ms_a_view,
            "seconds": round(self.seconds, 2), "memory_mib": dict(self.memory_mib), "reason": self.reason,
        }  # fmt: skip


def null_profile() -> Profile:
    """Return the miniature lineup with three voters, on the null engine."""
    profile = load_profile("mini", [f"storage.partition_digits={_DIGITS}", "schedule=streamed"])
    lineup = profile.lineup
    voters = [voter.model_copy(update={"engine": NULL_ENGINE}) for voter in lineup.voters[:_VOTERS]]
    captioner = lineup.captioner.model_copy(update={"engine": NULL_ENGINE})
    return profile.model_copy(
        update={"lineup": lineup.model_copy(update={"captioner": captioner, "voters": tuple(voters)})}
    )


def scale_job(run: Run, views: int, profile: str) -> Job:
    """Write views into a run; return the job that captions them."""
    fabricate(run, views, _DIGITS)
    return Job("caption", run, profile)


def scaled(result: JobResult, views: int) -> Scaled:
    """Return the measurements of a job."""
    if result.failure:
        return Scaled(views, None, None, 0.0, {}, result.failure)
    steady = steady_seconds(list(result.events.values()))
    events = result.events.get("captions", [])
    rows = events[-1][1] - events[0][1] if events else 0
    cpu = 1000 * result.cpu_steady_s / rows if result.cpu_steady_s is not None and rows else None
    return Scaled(
        views,
        round(1000 * steady / views, 3) if steady else None,
        None if cpu is None else round(cpu, 3),
        result.end - result.begin,
        result.memory_mib,
    )
