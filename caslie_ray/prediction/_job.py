"""The predict job: passes over unanswered questions until none is left."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from caslie_ray.cluster.distribution import is_large
from caslie_ray.cluster.partition_map import map_partitions
from caslie_ray.engines.preflight import preflight
from caslie_ray.errors import RunError
from caslie_ray.monitoring.pool_stats import PoolStats
from caslie_ray.monitoring.progress import Progress
from caslie_ray.monitoring.progress_monitor import ProgressMonitor
from caslie_ray.pipeline.pools import Pools, block_rows_for, pass_after_pass
from caslie_ray.prediction._answerers import Answerer, answerers_of
from caslie_ray.prediction._known_answers import PREDICTIONS
from caslie_ray.prediction._partition import PartitionStatus, PredictionSpec, merge_files, partition_status
from caslie_ray.profiles import Profile
from caslie_ray.roles import Role
from caslie_ray.storage.run import Run

__all__ = ["PredictResult", "plan_prediction", "predict"]

_SHRINK = 8

_T = TypeVar("_T")


@dataclass
class PredictResult:
    """Result of a predict job.

    Attributes:
        summary: the content of `RUN/summary/predict.json`.
        missing: questions without an answer; if any, run the job again.
    """

    summary: dict[str, Any]
    missing: int


@dataclass
class _Job:
    run: Run
    profile: Profile
    quiet: bool
    base: Role = field(init=False)
    answerers: list[Answerer] = field(init=False)
    pools: dict[str, PoolStats] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.base, self.answerers = answerers_of(self.run, self.profile)
        self.tables = sorted({answerer.table for answerer in self.answerers})
        self.names = sorted({self.run.partition(path) for table in self.tables for path in self.run.files(table)})
        if self.answerers and not self.names:
            raise RunError(f"{self.run.label} has no instructions: run fuse first")
        self.distributed = is_large(self.run, (path for table in self.tables for path in self.run.files(table)))

    def files(self, names: Sequence[str]) -> list[dict[str, list[str]]]:
        """Return the files of each partition, by table."""
        listed = {table: self.run.by_partition(table) for table in (*self.tables, PREDICTIONS)}
        return [{table: found.get(name, []) for table, found in listed.items()} for name in names]

    def spec(self, *, retry: bool) -> PredictionSpec:
        """Return the work of a pass."""
        rows = self.profile.storage.block_rows
        return PredictionSpec(
            self.run, self.base, tuple(self.answerers), tuple(self.profile.prediction.splits), rows, retry
        )

    def map(self, function: Callable[[Run, str], _T], names: Sequence[str]) -> Iterator[tuple[str, _T]]:
        """Yield partitions and what a function returns for them, in no fixed order; of a large run from Ray tasks."""
        run = self.run

        def call(part: tuple[str, dict[str, list[str]]]) -> tuple[str, _T]:
            name, files = part
            return name, function(run.with_file_listing(files), name)

        parts = list(zip(names, self.files(names), strict=True))
        return map_partitions(call, parts, distributed=self.distributed)

    def survey(self, names: Sequence[str], *, retry: bool) -> dict[str, PartitionStatus]:
        """Return the status of partitions; asks no model."""
        spec = self.spec(retry=retry)

        def look(run: Run, name: str) -> PartitionStatus:
            return partition_status(run, name, lambda run: replace(spec, run=run))

        return dict(self.map(look, names))

    def execute(self) -> PredictResult:
        """Ask what is missing, merge the files of each partition, and write the summary."""
        started = time.monotonic()
        before = self.survey(self.names, retry=True)
        missing = {name: status.missing for name, status in before.items()}
        total = sum(missing.values())
        if total:
            self._ask(missing, total)
        after = self.survey(self.names, retry=False) if total else before
        spec = self.spec(retry=False)
        unmerged = [name for name, status in after.items() if not status.merged]
        for _ in self.map(lambda run, name: merge_files(replace(spec, run=run), name), unmerged):
            pass
        left = sum(status.missing for status in after.values())
        summary = self._summary(after, total - left, left, time.monotonic() - started)
        self.run.write_json("summary/predict.json", summary)
        return PredictResult(summary, left)

    def _ask(self, missing: dict[str, int], total: int) -> None:
        pools = Pools(self.profile.faults, [self.base], total)
        with Progress("predict", total, "answers", quiet=self.quiet) as progress:
            with pools, ProgressMonitor(pools.poll, progress, self.run.label, "predict") as watch:
                spec = self.spec(retry=True)
                spec = replace(spec, block_rows=block_rows_for(pools.plans, spec.block_rows, total))

                def once(names: list[str], smaller: int) -> None:
                    nonlocal spec
                    here = replace(spec, block_rows=max(1, spec.block_rows // _SHRINK**smaller))
                    parts = dict(zip(names, self.files(names), strict=True))
                    for report in pools.run_pass(here, parts, here.block_rows, small_calls=smaller > 0):
                        watch.add(**report)
                    spec = replace(spec, retry=False)

                def look(names: list[str]) -> dict[str, int]:
                    return {name: status.missing for name, status in self.survey(names, retry=False).items()}

                pass_after_pass(missing, once, look, self.profile.faults.passes)
            self.pools.update(pools.stats)

    def _summary(
        self, statuses: dict[str, PartitionStatus], answered: int, left: int, seconds: float
    ) -> dict[str, Any]:
        (stats,) = self.pools.values() or (PoolStats(self.base.name),)
        return {
            "job": "predict",
            "run": self.run.label,
            "profile": self.profile.name,
            "model": self.base.name,
            "engine": self.base.spec.engine,
            "variants": sorted({answerer.variant for answerer in self.answerers}),
            "splits": list(self.profile.prediction.splits),
            "answers": sum(status.asked for status in statuses.values()) - left,
            "missing": left,
            "failed": _failed(statuses.values()),
            "captions_cut": _captions_cut(statuses.values()),
            "this_session": {
                "answers": answered,
                "seconds": round(seconds, 2),
                "model_calls": stats.requests,
                "tokens": stats.prompt_tokens + stats.new_tokens,
                "replicas_lost": stats.deaths,
                "engine": stats.details,
            },
        }


def _failed(statuses: Iterable[PartitionStatus]) -> dict[str, dict[str, int]]:
    """Return answers, unreadable answers and errors, by variant."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for status in statuses:
        for variant, count in status.counts.items():
            counts[variant].update({name: n for name, n in count.items() if name != "captions_cut"})
    return {name: dict(count) for name, count in sorted(counts.items())}


def _captions_cut(statuses: Iterable[PartitionStatus]) -> dict[str, int]:
    """Return answers to prompts whose captions lost words, by variant."""
    counts: Counter[str] = Counter()
    for status in statuses:
        for variant, count in status.counts.items():
            counts[variant] += count["captions_cut"]
    return dict(sorted(counts.items()))


def predict(run: Run, profile: Profile, *, quiet: bool = False) -> PredictResult:
    """Let a profile's models answer the instructions of its splits.

    Only unanswered questions are asked; if there are none, no model is loaded.

    Args:
        run: contains `instructions` and the trained models.
        profile: the base, the models and the splits.
        quiet: no progress lines.

    Raises:
        RunError: instructions or models are missing, or the store refuses.
        EngineError: the base cannot be found.
        PoolDown: the base cannot be started, or does not stay alive.
    """
    return _Job(run, profile, quiet).execute()


def plan_prediction(run: Run, profile: Profile) -> list[str]:
    """Return what a prediction would do, as lines; loads no model.

    Raises:
        RunError: instructions or models are missing.
        EngineError: the base cannot be found, or can never be loaded.
    """
    job = _Job(run, profile, quiet=True)
    preflight(job.base.spec)
    statuses = job.survey(job.names, retry=True)
    asked, missing = (sum(getattr(status, name) for status in statuses.values()) for name in ("asked", "missing"))
    return [
        f"model          {job.base.name} on {job.base.engine}",
        f"answer as      {', '.join(dict.fromkeys(answerer.variant for answerer in job.answerers))}",
        f"splits         {', '.join(profile.prediction.splits)}",
        f"questions      {asked:,}",
        f"model calls    {missing:,}",
    ]
