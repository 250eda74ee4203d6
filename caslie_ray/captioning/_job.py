"""The caption job: passes over what is missing until every view has its row, then the audit."""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pyarrow as pa
import ray
from ray.exceptions import RayError

from caslie_ray.captioning._ledger import KEPT, PartitionState, load, survey
from caslie_ray.captioning._stages import advance
from caslie_ray.captioning._summary import Counts, count_partition, describe, merge
from caslie_ray.captioning._work import RouterAsk, WorkOrder, compact, tidy, work
from caslie_ray.cluster import can_grow, connect, map_partitions, room
from caslie_ray.lineup import ResolvedLineup, Role, resolve
from caslie_ray.placement import pool_plans, refuse_what_cannot_fit
from caslie_ray.pools import start_router
from caslie_ray.profiles import Profile
from caslie_ray.progress import Progress
from caslie_ray.replicas import PoolStats
from caslie_ray.runs import Run, RunError

__all__ = ["CaptionJob", "CaptionResult", "caption"]

log = logging.getLogger(__name__)

_DISTRIBUTE_FROM = 20_000
# They wait for models, which may hold every CPU: asking for any could mean to wait without end.
_TASK_CPUS = 0
_TASK_RETRIES = 3
_STATS_S = 30.0


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
        PoolDown: a model cannot be started.
    """

    run: Run
    profile: Profile
    quiet: bool = False
    lineup: ResolvedLineup = field(init=False)
    names: list[str] = field(init=False)
    rows: int = field(init=False)
    pools: dict[str, PoolStats] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.lineup = resolve(self.profile)
        files = self.run.files("views")
        if not files:
            raise RunError(f"{self.run.uri} has no views: run ingest first")
        self.names = sorted({self.run.partition(path) for path in files})
        self._refuse_other_partitions()
        self.rows = 0
        for path in files:
            if self.rows < _DISTRIBUTE_FROM:  # more need not be known
                self.rows += self.run.count_rows(path)

    def _refuse_other_partitions(self) -> None:
        digits = {len(name) for name in self.names if name != "all"}
        held = {len(self.run.partition(path)) for path in self.run.files("captions")}
        if digits and held and held != digits:
            raise RunError(
                f"the captions of {self.run.uri} are cut by {max(held)} digits of the image id and its views by"
                f" {max(digits)}: set storage.partition_digits={max(held)} and run ingest again, or use another run"
            )

    def survey(self, retry: Collection[str], names: Sequence[str] | None = None) -> list[PartitionState]:
        """Ask the ledger what is missing, in the named partitions or in all."""
        look = functools.partial(survey, lineup=self.lineup, retry=frozenset(retry))
        return list(self._map(look, names or self.names))

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
            if self.profile.schedule == "staged":
                self._staged()
            else:
                self._streamed(states)
        waiting = self._tidy(states)
        counts = merge(self._map(functools.partial(count_partition, lineup=self.lineup), self.names))
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

        def call(part: tuple[str, dict[str, list[str]]]) -> Any:
            name, files = part
            return function(run.knowing(files), name)

        parts = list(zip(names, self.files(names), strict=True))
        return map_partitions(call, parts, distributed=self.rows >= _DISTRIBUTE_FROM)

    def _streamed(self, states: Sequence[PartitionState]) -> None:
        total = sum(state.missing for state in states)
        with Models(self, self.lineup.roles) as router, self._progress("caption", total) as progress:
            order = WorkOrder(self.run, self.lineup, self.profile.storage.block_rows, self.lineup.names)
            self._passes(order, router, states, progress, lambda state: state.missing)

    def _staged(self) -> None:
        for role in self.lineup.roles:
            retry = frozenset({role.name})
            states = self.survey(retry)
            name = role.name

            def waiting(state: PartitionState, name: str = name) -> int:
                return state.waits[name]

            total = sum(map(waiting, states))
            if not total:
                continue
            with Models(self, [role]) as router, self._progress(role.name, total) as progress:
                order = WorkOrder(self.run, self.lineup, self.profile.storage.block_rows, retry, stage=role.name)
                self._passes(order, router, states, progress, waiting)
            names = [state.partition for state in states if waiting(state)]
            list(self._map(functools.partial(compact, folder=role.answers), names))

    def _passes(
        self,
        order: WorkOrder,
        router: Any,
        states: Sequence[PartitionState],
        progress: Progress,
        left: Callable[[PartitionState], int],
    ) -> None:
        """Run what is missing, look at the ledger, and run what is still missing in smaller blocks."""
        passes = self.profile.faults.passes
        for number in range(1, passes + 1):
            names = [state.partition for state in states if left(state)]
            if not names:
                return
            if number > 1:
                log.warning("pass %d of %d: %d views are still missing", number, passes, sum(map(left, states)))
            for report in run_pass(order, router, names, self.files(names), self._tasks(order)):
                if report["failure"]:
                    raise RunError(report["failure"])
                progress.add(report["views"])
                tell_news(router)
            order = replace(order, block_rows=max(1, order.block_rows // 8), retry=frozenset())
            states = self.survey((), names)

    def _tasks(self, order: WorkOrder) -> int:
        """How many partitions are worked on at once: enough that no replica, or no core, waits for work."""
        roles = [role for role in self.lineup.roles if order.stage in (None, role.name)]
        batches = sum(plan.maximum * plan.slots for plan in pool_plans(roles))
        return max(2, min(batches + 1, int(room().get("CPU", 1)) + 2))

    def _tidy(self, states: Iterable[PartitionState]) -> int:
        """Bring what changed into one file a partition; return how many views still wait for a model."""
        untidy = [state.partition for state in states if state.missing or not state.tidy]
        gone = {self.run.partition(path) for path in self.run.files("captions")} - set(self.names)
        return sum(self._map(functools.partial(tidy, lineup=self.lineup), untidy + sorted(gone)))

    def _progress(self, name: str, total: int) -> Progress:
        return Progress(name, total, quiet=self.quiet)

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
            "run": self.run.uri,
            "profile": self.profile.name,
            "schedule": self.profile.schedule,
            "engines": {role.name: role.spec.engine for role in self.lineup.roles},
            "missing": left,
            **table,
            "repeats_saved": ingest.get("repeated_views"),
            "rejects": ingest.get("reject_reasons"),
            "this_session": session,
        }


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


class Models:
    """The router and its pools for some roles, as a context; what they did is added to the job's figures."""

    def __init__(self, job: CaptionJob, roles: Sequence[Role]) -> None:
        self._job = job
        self._roles = roles
        self._router: Any = None

    def __enter__(self) -> Any:
        connect()
        plans = pool_plans(self._roles)
        if plans:
            if not can_grow():
                refuse_what_cannot_fit(plans, room())
            log.info("loading %s", ", ".join(plan.name for plan in plans))
            for role in self._roles:
                if role.why:
                    log.info("%s on %s: %s", role.name, role.spec.engine, role.why)
            self._router = start_router(plans, self._job.profile.faults)
        return self._router

    def __exit__(self, *_: object) -> None:
        if self._router is None:
            return
        tell_news(self._router)
        try:
            for key, stats in ray.get(self._router.stats.remote(), timeout=_STATS_S).items():
                self._job.pools[f"{key}-{stats.name}"] = stats
        except RayError as error:  # what was written stands all the same
            log.warning("the figures of this session are lost: %s", str(error).split("\n")[0])
        try:
            with suppress(RayError):
                ray.get(self._router.stop.remote(), timeout=_STATS_S)
        finally:
            ray.kill(self._router)


def tell_news(router: Any) -> None:
    """Say in the job's log why replicas were lost."""
    if router is not None:
        with suppress(RayError):  # no news: what was written stands all the same
            for line in ray.get(router.news.remote(), timeout=_STATS_S):
                log.warning("%s", line)


def run_pass(
    order: WorkOrder, router: Any, names: Sequence[str], files: Sequence[dict[str, list[str]]], tasks: int
) -> Iterator[dict[str, Any]]:
    """Work on partitions through Ray Data; yield a report a block: views, errors, and why a store refused."""
    # A task that starts again must see what it wrote before.
    written = "captions" if order.stage is None else order.stage_folder
    known = [json.dumps({table: paths for table, paths in part.items() if table != written}) for part in files]
    parts = [{"partition": name, "files": part} for name, part in zip(names, known, strict=True)]
    reports = ray.data.from_items(parts, override_num_blocks=len(parts)).map_batches(
        cast(Any, _work_task),  # Ray's types know no function that takes more than the batch
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs={"order": order, "router": router},
        compute=ray.data.TaskPoolStrategy(size=tasks),
        num_cpus=_TASK_CPUS,
        max_retries=_TASK_RETRIES,
    )
    # A task lost with its node is no reason to stop: the ledger shows what is missing, and the next pass does it.
    reports.context.max_errored_blocks = -1
    for batch in reports.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        yield from cast(pa.Table, batch).to_pylist()


def _work_task(batch: pa.Table, order: WorkOrder, router: Any) -> Iterator[pa.Table]:
    ask = RouterAsk(router) if router is not None else None
    for part in batch.to_pylist():
        here = replace(order, run=order.run.knowing(json.loads(part["files"])))
        try:
            for report in work(here, part["partition"], ask):
                yield pa.table({"views": [report["views"]], "errors": [report["errors"]], "failure": [""]})
        except RayError:
            raise  # the cluster's doing: the next pass looks at what is missing
        except Exception as error:  # Ray Data would drop the block and its error; the job is to end with it
            told = str(error) if isinstance(error, RunError) else f"{type(error).__name__}: {error}"
            yield pa.table({"views": [0], "errors": [0], "failure": [told or "unknown error"]})
