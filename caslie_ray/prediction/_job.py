"""The predict job: passes over what is not answered until everything is."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from caslie_ray.cluster.partition_map import map_partitions
from caslie_ray.engines.preflight import preflight
from caslie_ray.errors import RunError
from caslie_ray.monitoring.pool_stats import PoolStats
from caslie_ray.monitoring.progress import Progress
from caslie_ray.monitoring.progress_monitor import ProgressMonitor
from caslie_ray.pipeline.passes import Models, block_rows_for, pass_after_pass, run_pass, tasks_for
from caslie_ray.prediction._answerers import Answerer, answerers_of
from caslie_ray.prediction._work import PREDICTIONS, PredictOrder, Stand, stand_of, tidy
from caslie_ray.profiles import Profile
from caslie_ray.roles import Role
from caslie_ray.storage.run import Run

__all__ = ["PredictResult", "plan_prediction", "predict"]

_SHRINK = 8


@dataclass
class PredictResult:
    """How a predict job ended.

    Attributes:
        summary: what `RUN/summary/predict.json` holds.
        missing: questions without an answer; run the job again where it is not 0.
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

    def files(self, names: Sequence[str]) -> list[dict[str, list[str]]]:
        """The files that each partition has, by table."""
        listed = {table: self.run.by_partition(table) for table in (*self.tables, PREDICTIONS)}
        return [{table: found.get(name, []) for table, found in listed.items()} for name in names]

    def order(self, *, retry: bool) -> PredictOrder:
        """What is to be done."""
        rows = self.profile.storage.block_rows
        return PredictOrder(
            self.run, self.base, tuple(self.answerers), tuple(self.profile.prediction.splits), rows, retry
        )

    def survey(self, names: Sequence[str], *, retry: bool) -> dict[str, Stand]:
        """How partitions stand; asks no model."""
        order = self.order(retry=retry)

        def look(part: tuple[str, dict[str, list[str]]]) -> tuple[str, Stand]:
            name, files = part
            return name, stand_of(self.run.with_file_listing(files), name, lambda run: replace(order, run=run))

        return dict(map_partitions(look, list(zip(names, self.files(names), strict=True)), distributed=False))

    def execute(self) -> PredictResult:
        """Ask what is missing, bring the table in order, and write the summary."""
        begun = time.monotonic()
        before = self.survey(self.names, retry=True)
        missing = {name: stand.missing for name, stand in before.items()}
        total = sum(missing.values())
        if total:
            self._ask(missing, total)
        after = self.survey(self.names, retry=False) if total else before
        order = self.order(retry=False)
        for name, stand in after.items():
            if not stand.tidy:
                tidy(order, name)
        left = sum(stand.missing for stand in after.values())
        summary = self._summary(after, total - left, left, time.monotonic() - begun)
        self.run.write_json("summary/predict.json", summary)
        return PredictResult(summary, left)

    def _ask(self, missing: dict[str, int], total: int) -> None:
        models = Models(self.profile.faults, [self.base], total)
        with Progress("predict", total, "answers", quiet=self.quiet) as progress:
            with models as router, ProgressMonitor(router, progress, self.run.label, "predict") as watch:
                tasks = tasks_for(models.plans)
                order = self.order(retry=True)
                order = replace(order, block_rows=block_rows_for(models.plans, order.block_rows))

                def once(names: list[str], smaller: int) -> None:
                    nonlocal order
                    here = replace(order, block_rows=max(1, order.block_rows // _SHRINK**smaller))
                    for report in run_pass(here, router, names, self.files(names), tasks):
                        watch.add(**report)
                    order = replace(order, retry=False)

                def look(names: list[str]) -> dict[str, int]:
                    return {name: stand.missing for name, stand in self.survey(names, retry=False).items()}

                pass_after_pass(missing, once, look, self.profile.faults.passes)
            self.pools.update(models.stats)

    def _summary(self, stands: dict[str, Stand], answered: int, left: int, seconds: float) -> dict[str, Any]:
        (stats,) = self.pools.values() or (PoolStats(self.base.name),)
        return {
            "job": "predict",
            "run": self.run.label,
            "profile": self.profile.name,
            "model": self.base.name,
            "engine": self.base.spec.engine,
            "variants": sorted({answerer.variant for answerer in self.answerers}),
            "splits": list(self.profile.prediction.splits),
            "answers": sum(stand.asked for stand in stands.values()) - left,
            "missing": left,
            "failed": _failed(stands.values()),
            "captions_cut": _captions_cut(stands.values()),
            "this_session": {
                "answers": answered,
                "seconds": round(seconds, 2),
                "model_calls": stats.requests,
                "tokens": stats.prompt_tokens + stats.new_tokens,
                "replicas_lost": stats.deaths,
                "engine": stats.details,
            },
        }


def _failed(stands: Iterable[Stand]) -> dict[str, dict[str, int]]:
    """Answers, those that cannot be read, and those that the engine could not give, by variant."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for stand in stands:
        for variant, count in stand.counts.items():
            counts[variant].update({name: n for name, n in count.items() if name != "captions_cut"})
    return {name: dict(count) for name, count in sorted(counts.items())}


def _captions_cut(stands: Iterable[Stand]) -> dict[str, int]:
    """Answers to prompts whose captions lost words, by variant."""
    counts: Counter[str] = Counter()
    for stand in stands:
        for variant, count in stand.counts.items():
            counts[variant] += count["captions_cut"]
    return dict(sorted(counts.items()))


def predict(run: Run, profile: Profile, *, quiet: bool = False) -> PredictResult:
    """Let the models that a profile names answer the instructions of its splits.

    Only what the run lacks is asked; a run that lacks nothing starts no Ray and loads no model.

    Args:
        run: holds `instructions` and trained models.
        profile: the base, the models and the splits.
        quiet: no progress lines.

    Raises:
        RunError: instructions or models are missing, or the store refuses.
        EngineError: the base cannot be found.
        PoolDown: it cannot be started, or does not stay alive.
    """
    return _Job(run, profile, quiet).execute()


def plan_prediction(run: Run, profile: Profile) -> list[str]:
    """Return what a prediction would do, as lines; no model is loaded.

    Raises:
        RunError: instructions or models are missing.
        EngineError: the base cannot be found, or can never be loaded.
    """
    job = _Job(run, profile, quiet=True)
    preflight(job.base.spec)
    stands = job.survey(job.names, retry=True)
    asked, missing = (sum(getattr(stand, name) for stand in stands.values()) for name in ("asked", "missing"))
    return [
        f"model          {job.base.name} on {job.base.engine}",
        f"answer as      {', '.join(dict.fromkeys(answerer.variant for answerer in job.answerers))}",
        f"splits         {', '.join(profile.prediction.splits)}",
        f"questions      {asked:,}",
        f"model calls    {missing:,}",
    ]
