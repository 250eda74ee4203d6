"""The caption job: passes over what is missing until every view has its row, then the audit."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from caslie_ray.captioning._ledger import KEPT, PartitionState, glance, load, survey
from caslie_ray.captioning._settled import settled
from caslie_ray.captioning._stages import advance
from caslie_ray.captioning._summary import Counts, count_partition, describe, merge
from caslie_ray.captioning._work import WorkOrder, tidy
from caslie_ray.cluster.distribution import is_large
from caslie_ray.cluster.partition_map import map_partitions
from caslie_ray.errors import RunError
from caslie_ray.monitoring.pool_stats import PoolStats
from caslie_ray.monitoring.progress import Progress
from caslie_ray.monitoring.progress_monitor import ProgressMonitor
from caslie_ray.pipeline.passes import Models, block_rows_for, check_models, pass_after_pass, run_pass, tasks_for
from caslie_ray.pipeline.placement import PoolPlan
from caslie_ray.profiles import Profile
from caslie_ray.roles import ResolvedLineup, Role, needed_names, resolve
from caslie_ray.storage.run import Run

__all__ = ["CaptionJob", "CaptionResult", "caption"]

log = logging.getLogger(__name__)

_DISTRIBUTE_FROM = 20_000
# Share of its views that a job has in hand at most; less than so many views a block keep no model busy.
_IN_HAND = 0.01
_SMALL_BLOCK = 8
# How much smaller blocks get after a pass that finished nothing.
_SHRINK = 8
# They wait for a store more than they compute.
_GLANCES = 16


@dataclass
class CaptionResult:
    """How a caption job ended.

    Attributes:
        summary: what `RUN/summary/caption.json` holds.
        missing: views without a row; run the job again where it is not 0.
    """

    summary: dict[str, Any]
    missing: int


@dataclass
class CaptionJob:
    """One caption job on one run.

    Raises:
        ProfileError: the lineup is refused.
        EngineError: a checkpoint cannot be found.
        RunError: the run has no views, or its store refuses.
        PoolDown: a model cannot be started, or does not stay alive; see `faults.missing_voter`.
    """

    run: Run
    profile: Profile
    quiet: bool = False
    lineup: ResolvedLineup = field(init=False)
    names: list[str] = field(init=False)
    pools: dict[str, PoolStats] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.lineup = resolve(self.profile)
        files = self.run.files("views")
        if not files:
            raise RunError(f"{self.run.label} has no views: run ingest first")
        self.names = sorted({self.run.partition(path) for path in files})
        self._refuse_other_partitions()

    def _refuse_other_partitions(self) -> None:
        digits = {len(name) for name in self.names if name != "all"}
        held = {len(self.run.partition(path)) for path in self.run.files("captions")}
        if digits and held and held != digits:
            raise RunError(
                f"the captions of {self.run.label} are cut by {max(held)} digits of the image id and its views by"
                f" {max(digits)}: set storage.partition_digits={max(held)} and run ingest again, or use another run"
            )

    def survey(self, retry: Collection[str], names: Sequence[str] | None = None) -> list[PartitionState]:
        """Ask the ledger what is missing, in the named partitions or in all.

        Those that are finished or not begun are looked at here, for that takes less than starting Ray.
        """
        names = names or self.names

        def look(part: tuple[str, dict[str, list[str]]]) -> PartitionState | None:
            name, files = part
            return glance(self.run.with_file_listing(files), name, self.lineup)

        with ThreadPoolExecutor(_GLANCES) as threads:
            seen = dict(zip(names, threads.map(look, zip(names, self.files(names), strict=True)), strict=True))
        # What the threads have read and dropped would stay with the driver: some 10 MiB a thread.
        pa.default_memory_pool().release_unused()
        read = functools.partial(survey, lineup=self.lineup, retry=frozenset(retry))
        begun = self._map(read, [name for name in names if seen[name] is None])
        return [*filter(None, seen.values()), *begun]

    def waiting(self, partition: str) -> list[str]:
        """Return the ids of a partition's views that wait for a model."""
        ledger = load(self.run, partition, self.lineup, self.lineup.names)
        return [row.view.view_id for row in advance(ledger.views, self.lineup, ledger.known) if row.waits_for]

    def execute(self) -> CaptionResult:
        """Do what is missing, audit the table, and write the summary."""
        begun = time.monotonic()
        states = self.survey(self.lineup.names)
        missing = sum(state.missing for state in states)
        # Rows that only have to be written anew wait for no model; tidying writes them.
        if any(state.waits for state in states):
            check_models(self.lineup.roles, needed_names(self.lineup, self.profile.faults))
            if self.profile.schedule == "staged":
                self._staged()
            else:
                self._streamed(states)
            states = self.survey(())
        waiting = self._tidy(states)
        counts = self._count(states)
        # A view may wait and have a row: an old one, that no longer holds.
        left = max(waiting, counts.totals["missing"]) + counts.totals["orphans"]
        summary = self._summary(counts, left, max(0, missing - left), time.monotonic() - begun)
        self.run.write_json("summary/caption.json", summary)
        return CaptionResult(summary, left)

    def files(self, names: Sequence[str]) -> list[dict[str, list[str]]]:
        """Return the files that each partition has, by table: every table is listed once, not once a partition."""
        tables = ["views", "images", "captions", KEPT, *(role.answers for role in self.lineup.roles)]
        listed = {table: self.run.by_partition(table) for table in tables}
        return [{table: found.get(name, []) for table, found in listed.items()} for name in names]

    def _map(self, function: Callable[[Run, str], Any], names: Sequence[str]) -> Iterator[Any]:
        """Yield ``function(run, partition)`` for every partition, in no fixed order."""
        run = self.run
        if not names:
            return iter(())

        def call(part: tuple[str, dict[str, list[str]]]) -> Any:
            name, files = part
            return function(run.with_file_listing(files), name)

        parts = list(zip(names, self.files(names), strict=True))
        views = (path for _, files in parts for path in files["views"])
        return map_partitions(call, parts, distributed=is_large(run, views, _DISTRIBUTE_FROM))

    def _streamed(self, states: Sequence[PartitionState]) -> None:
        order = WorkOrder(self.run, self.lineup, self.profile.storage.block_rows, self.lineup.names)
        self._ask(order, "caption", self.lineup.roles, states, lambda state: state.missing)

    def _staged(self) -> None:
        for role in self.lineup.roles:
            retry = frozenset({role.name})
            states = self.survey(retry)

            def waiting(state: PartitionState, name: str = role.name) -> int:
                return state.waits[name]

            if any(map(waiting, states)):
                order = WorkOrder(self.run, self.lineup, self.profile.storage.block_rows, retry, stage=role.name)
                self._ask(order, role.name, [role], states, waiting)

    def _ask(
        self,
        order: WorkOrder,
        name: str,
        roles: Sequence[Role],
        states: Sequence[PartitionState],
        left: Callable[[PartitionState], int],
    ) -> None:
        """Load models, and run passes until they have answered what is left to them."""
        needed = needed_names(self.lineup, self.profile.faults)
        total = sum(map(left, states))
        models = Models(self.profile.faults, roles, self._pool_rows(total), needed)
        with Progress(name, total, quiet=self.quiet) as progress:
            with models as router, ProgressMonitor(router, progress, self.run.label, name) as watch:
                tasks = tasks_for(models.plans)
                order = replace(order, block_rows=self._block_rows(order, self._job_rows(total), tasks, models.plans))
                self._passes(order, router, states, watch, left, tasks)
            self.pools.update(models.stats)

    def _passes(
        self,
        order: WorkOrder,
        router: Any,
        states: Sequence[PartitionState],
        watch: ProgressMonitor,
        left: Callable[[PartitionState], int],
        tasks: int,
    ) -> None:
        """Run what is missing, pass after pass."""

        def once(names: list[str], smaller: int) -> None:
            nonlocal order
            here = replace(order, block_rows=max(1, order.block_rows // _SHRINK**smaller))
            for report in run_pass(here, router, names, self.files(names), tasks):
                watch.add(**report)
            order = replace(order, retry=frozenset())

        def look(names: list[str]) -> dict[str, int]:
            return {state.partition: left(state) for state in self.survey((), names)}

        missing = {state.partition: left(state) for state in states}
        pass_after_pass(missing, once, look, self.profile.faults.passes)

    def _pool_rows(self, total: int) -> int:
        """Rows that decide on the sizes of pools."""
        return total

    def _job_rows(self, total: int) -> int:
        """Rows that decide on the sizes of blocks."""
        return total

    def _block_rows(self, order: WorkOrder, total: int, tasks: int, plans: Sequence[PoolPlan]) -> int:
        """How many views go through the models together, so that a job that is killed has little in hand."""
        in_hand = int(_IN_HAND * total / tasks)
        return block_rows_for(plans, min(order.block_rows, max(_SMALL_BLOCK, in_hand)))

    def _tidy(self, states: Sequence[PartitionState]) -> int:
        """Bring what changed into one file a partition; return how many views still wait for a model."""
        untidy = [state.partition for state in states if state.missing or not state.tidy]
        gone = {self.run.partition(path) for path in self.run.files("captions")} - set(self.names)
        return sum(self._map(functools.partial(tidy, lineup=self.lineup), untidy + sorted(gone)))

    def _count(self, states: Sequence[PartitionState]) -> Counts:
        told = [state.counts for state in states if state.counts is not None]
        others = [state.partition for state in states if state.counts is None]
        return merge([*told, *self._map(functools.partial(_counts, lineup=self.lineup), others)])

    def _summary(self, counts: Counts, left: int, computed: int, seconds: float) -> dict[str, Any]:
        ingest = self.run.read_json("summary/ingest.json") or {}
        asked = {stats.name: stats for stats in self.pools.values()}
        requests = sum(stats.requests for stats in asked.values())
        voting_s = sum(stats.choosing_s for stats in asked.values())
        captioning_s = sum(stats.busy_s for stats in asked.values()) - voting_s
        session = {
            "views_computed": computed,
            "seconds": round(seconds, 2),
            "views_per_second": round(computed / seconds, 3) if computed else 0.0,
            "model_calls": requests,
            "tokens": sum(stats.prompt_tokens + stats.new_tokens for stats in asked.values()),
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
                for name, stats in asked.items()
            },
            "seconds_an_instance": {
                "captioning": _per(captioning_s, computed),
                "voting": _per(voting_s, computed),
            },
        }
        table = describe(counts)
        return {
            "job": "caption",
            "run": self.run.label,
            "profile": self.profile.name,
            "schedule": self.profile.schedule,
            "engines": {role.name: role.spec.engine for role in self.lineup.roles},
            "missing": left,
            **table,
            "repeats_saved": ingest.get("repeated_views"),
            "rejects": ingest.get("reject_reasons"),
            "this_session": session,
        }


def _counts(run: Run, partition: str, lineup: ResolvedLineup) -> Counts:
    return settled(run, partition, lineup) or count_partition(run, partition, lineup)


def _per(seconds: float, views: int) -> float | None:
    return round(seconds / views, 4) if views else None


def caption(run: Run, profile: Profile, *, quiet: bool = False) -> CaptionResult:
    """Caption every view of a run and vote on the captions (EC³ and CQE, paper 4.1 and 4.2).

    Only what the run lacks is computed; a run that lacks nothing starts no Ray and loads no model.

    Args:
        run: holds `images` and `views`.
        profile: the lineup and its rules.
        quiet: no progress lines.
    """
    return CaptionJob(run, profile, quiet).execute()
