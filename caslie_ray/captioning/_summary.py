"""The summary of a caption job, `RUN/summary/caption.json`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from caslie_ray.captioning._counts import Counts
from caslie_ray.monitoring.pool_stats import PoolStats
from caslie_ray.profiles import Profile
from caslie_ray.quality import fleiss_kappa
from caslie_ray.roles import ResolvedLineup
from caslie_ray.storage.run import Run

__all__ = ["job_summary", "table_summary"]


def job_summary(
    run: Run, profile: Profile, lineup: ResolvedLineup, counts: Counts, pools: Mapping[str, PoolStats],
    *, missing: int, computed: int, seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """Return the summary of a caption job.

    Args:
        run: the run.
        profile: its profile.
        lineup: its models.
        counts: counts over the whole table.
        pools: statistics of the pools of this session.
        missing: views without an up-to-date row.
        computed: views computed in this session.
        seconds: duration of this session.
    """
    ingest = run.read_json("summary/ingest.json") or {}
    return {
        "job": "caption",
        "run": run.label,
        "profile": profile.name,
        "schedule": profile.schedule,
        "engines": {role.name: role.spec.engine for role in lineup.roles},
        "missing": missing,
        **table_summary(counts),
        "repeats_saved": ingest.get("repeated_views"),
        "rejects": ingest.get("reject_reasons"),
        "this_session": _session_summary(pools, computed, seconds),
    }


def table_summary(counts: Counts) -> dict[str, Any]:
    """Return the part of the summary that is counted from `captions`; shares are between 0 and 1."""
    by_task: dict[str, dict[str, float]] = defaultdict(dict)
    for task, views in sorted(counts.views.items()):
        by_task[task] = {"views": views, "used": counts.used[task], "used_share": counts.used[task] / views}
    views = sum(counts.views.values())
    return {
        "views": views,
        "captions_used": {
            "share": sum(counts.used.values()) / views if views else 0.0,
            "by_task": dict(by_task),
        },
        "voters": {
            name: {
                "asked": asked,
                "failed": counts.failed[name],
                "yes_rate": counts.audited_yes[name] / counts.audited[name] if counts.audited[name] else None,
            }
            for name, asked in counts.asked.items()
        },
        "all_voted": sum(counts.full.values()),
        "fleiss_kappa": fleiss_kappa(list(counts.full.elements())),
        "calls": counts.totals["calls"],
        "calls_saved_by_early_exit": counts.totals["calls_saved"],
        "tokens": counts.totals["tokens"],
        "prompts_cut": counts.totals["cut"],
        "captions_truncated": counts.totals["captions_truncated"],
        "errors": dict(counts.errors.most_common()),
        "to_be_asked_again": counts.totals["retryable"],
    }


def _session_summary(pools: Mapping[str, PoolStats], computed: int, seconds: float) -> dict[str, Any]:
    by_name = {stats.name: stats for stats in pools.values()}
    voting_s = sum(stats.choosing_s for stats in by_name.values())
    captioning_s = sum(stats.busy_s for stats in by_name.values()) - voting_s
    return {
        "views_computed": computed,
        "seconds": round(seconds, 2),
        "views_per_second": round(computed / seconds, 3) if computed else 0.0,
        "model_calls": sum(stats.requests for stats in by_name.values()),
        "tokens": sum(stats.prompt_tokens + stats.new_tokens for stats in by_name.values()),
        "models": {
            name: {
                "calls": stats.requests,
                "batches": stats.calls,
                "busy_seconds": round(stats.busy_s, 2),
                "load_seconds": round(stats.load_s, 2),
                "replicas_lost": stats.deaths,
                "down": stats.down,
                "engine": stats.details,
            }
            for name, stats in by_name.items()
        },
        "seconds_an_instance": {
            "captioning": _per_view(captioning_s, computed),
            "voting": _per_view(voting_s, computed),
        },
    }


def _per_view(seconds: float, views: int) -> float | None:
    return round(seconds / views, 4) if views else None
