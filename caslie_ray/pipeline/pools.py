"""The models of a job: checked, sized, and run in chains, pass after pass, until nothing is missing."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, cast

import ray
from ray.exceptions import ActorDiedError, RayError

from caslie_ray.cluster.capacity import capacity
from caslie_ray.cluster.connection import connect
from caslie_ray.engines.preflight import preflight
from caslie_ray.engines.process import ProcessLimits
from caslie_ray.errors import EngineError, PoolDown
from caslie_ray.monitoring.pool_stats import PoolStats
from caslie_ray.pipeline.chain import Aborted, ChainSettings, Stage, abort_chain, run_chain
from caslie_ray.pipeline.monitor import start_monitor
from caslie_ray.pipeline.placement import PoolPlan, pool_plans, refuse_what_cannot_fit, size_pools
from caslie_ray.pipeline.pool_state import PoolView
from caslie_ray.pipeline.work import Work
from caslie_ray.profiles import FaultSettings
from caslie_ray.roles import Role

__all__ = ["Pools", "block_rows_for", "check_models", "pass_after_pass"]

log = logging.getLogger(__name__)

# Upper limit of the work that a killed job repeats, as a share of all of it; smaller blocks than _SMALL_BLOCK cost more
# than they save.
_REPEATED = 0.01
_SMALL_BLOCK = 16
_STATS_S = 30.0
_STATUS_S = 10.0


class Pools:
    """The pools of replicas for some roles, as a context. Each pass runs one chain through them.

    Args:
        faults: limits on retries and waiting.
        roles: who is asked.
        rows: rows to answer; a pool without an upper limit gets no more replicas than these keep busy.
        needed: names of the roles that the job does not go on without; None for all.
    """

    def __init__(
        self, faults: FaultSettings, roles: Sequence[Role], rows: int, needed: Collection[str | None] | None = None
    ) -> None:
        self._faults = faults
        self._roles = roles
        self._rows = rows
        self._needed = needed
        self._monitor: Any = None
        self._avoid: dict[str, frozenset[str]] = {}
        self._absent: dict[str, str] = {}
        self._error: PoolDown | None = None
        self.plans: list[PoolPlan] = []
        """The pools with their sizes; known once the context is entered."""
        self.stats: dict[str, PoolStats] = {}
        """Counters of the pools by name; filled at the end."""

    def __enter__(self) -> Self:
        check_models(self._roles, self._needed)
        connection = connect()
        self.plans = size_pools(pool_plans(self._roles, self._needed), self._rows, capacity(connection))
        if self.plans:
            refuse_what_cannot_fit(self.plans, connection)
            log.info("loading %s", ", ".join(plan.name for plan in self.plans))
            for role in self._roles:
                if role.why:
                    log.info("%s on %s: %s", role.name, role.spec.engine, role.why)
            self._monitor = start_monitor(self.plans, self._faults, grows=connection.joined)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._monitor is None or (kind is not None and not issubclass(kind, Exception)):
            return  # a job that is asked to end must not wait
        try:
            for key, stats in ray.get(self._monitor.stats.remote(), timeout=_STATS_S).items():
                self.stats[f"{key}-{stats.name}"] = stats
        except RayError as lost:
            log.warning("the counters of this session are lost: %s", str(lost).split("\n")[0])
        finally:
            ray.kill(self._monitor)

    def run_pass(
        self,
        work: Work,
        parts: Mapping[str, dict[str, list[str]]],
        block_rows: int,
        *,
        small_calls: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Run one chain over partitions; yield what `run_chain` yields.

        What is lost with a node is not reported: the ledger shows it.

        Args:
            work: what is done.
            parts: the files of each partition by table, by the partition's name.
            block_rows: upper limit of rows per block.
            small_calls: whether an engine call has no more requests than a block, even if a batch is larger.

        Raises:
            RunError: a store refuses.
            PoolDown: a model that is needed cannot be started or kept alive.
        """
        reported = False
        while not reported:
            abort_chain(None)
            if self._error is not None:
                raise self._error
            number = self._begin()
            here: Work = replace(cast(Any, work), absent=dict(self._absent))
            try:
                settings = self._settings(block_rows, len(parts), number, small_calls)
                for report in run_chain(here, self._stages(), parts, settings):
                    reported = True
                    yield report
                return
            except Aborted as aborted:
                log.warning("%s", aborted)
            finally:
                gc.collect()  # Ray Data's executor is in reference cycles, and keeps the actors and their GPUs
        if self._error is not None:
            raise self._error

    def _begin(self) -> int:
        number = 0
        if self._monitor is not None:
            try:
                number = ray.get(self._monitor.begin.remote())
            except ActorDiedError as lost:
                raise PoolDown(_unwatched(lost)) from None
        return number

    def _settings(self, block_rows: int, parts: int, number: int, small_calls: bool) -> ChainSettings:
        faults = self._faults
        limits = ProcessLimits(
            tries=faults.tries, call_timeout_s=faults.call_timeout_s, failures_in_a_row=faults.replica_failures,
            start_timeout_s=faults.start_timeout_s, load_tries=1,  # `LoadPolicy` has the retries
        )  # fmt: skip
        no_progress_s = self._no_progress_s(block_rows)
        average = max(1, min(block_rows, self._rows // max(1, parts)))
        call_rows = block_rows if small_calls else None
        return ChainSettings(limits, average, no_progress_s, self._monitor, dict(self._avoid), number, call_rows)

    def poll(self) -> tuple[list[str], list[tuple[PoolStats, int]]]:
        """Return what happened since the last call, and the counters and upper limit of each pool.

        Aborts the running chain if a required pool is down. Called from another thread.
        """
        if self._monitor is None:
            return [], []
        try:
            messages, views = ray.get(self._monitor.quick_status.remote(), timeout=_STATUS_S)
        except ActorDiedError as lost:
            self._end(_unwatched(lost))
            return [], []
        for plan, view in zip(self.plans, views, strict=True):
            self._look_at(plan, view)
        return messages, [(view.stats, view.limit) for view in views]

    def _look_at(self, plan: PoolPlan, view: PoolView) -> None:
        avoided = self._avoid.get(plan.key, frozenset())
        if view.avoid - avoided or (view.avoid != avoided and not view.stats.ready):
            self._avoid[plan.key] = view.avoid
            abort_chain(f"{plan.name}: another pass, on other nodes")
        if view.stuck:
            abort_chain(f"{plan.name}: lost replicas find no room, and the others wait for their blocks: another pass")
        if view.error is None:
            return
        if view.needed:
            self._end(view.error)
            return
        names = [role.name for role in self._roles if role.pool == plan.key]
        if view.unplaced and not self._absent.keys() & set(names):
            self._absent.update(dict.fromkeys(names, view.error))
            abort_chain(f"{view.error}: the others go on without it")

    def _end(self, why: str) -> None:
        self._error = self._error or PoolDown(why)
        abort_chain(why)

    def _stages(self) -> list[Stage]:
        asked = [role for role in self._roles if role.name not in self._absent]
        names = {plan.key: tuple(role.name for role in asked if role.pool == plan.key) for plan in self.plans}
        return [Stage(plan, names[plan.key]) for plan in self.plans if names[plan.key]]

    def _no_progress_s(self, block_rows: int) -> float:
        """Seconds in which at least one block of a chain that works must end, whatever the cluster goes through."""
        calls = max((plan.slots + -(-block_rows // plan.call_rows) for plan in self.plans), default=2)
        return 2 * self._faults.start_timeout_s + calls * self._faults.call_timeout_s


def _unwatched(lost: ActorDiedError) -> str:
    return f"the actor that watches the models was lost; run the job again: {str(lost).splitlines()[0]}"


def check_models(roles: Sequence[Role], needed: Collection[str | None] | None = None) -> None:
    """Fail before anything is paid for if a model can never be loaded.

    Args:
        roles: the models that a job will ask.
        needed: names of those that it does not go on without, None for all; for the others there is a warning.

    Raises:
        EngineError: a needed model can never be loaded; the message names it and the fix.
    """
    for role in roles:
        try:
            preflight(role.spec)
        except EngineError as error:
            if needed is None or role.name in needed:
                raise
            log.warning("%s: %s", role.name, error)


def block_rows_for(plans: Sequence[PoolPlan], most: int, total: int) -> int:
    """Return the rows of a block: so few that a killed job repeats little; on a GPU full batches of the first pool.

    Answers are on disk before a block leaves a model. A kill costs what each model computes at that moment, and each
    has only a share of a row's work.

    Args:
        plans: the pools that rows go through.
        most: upper limit, unless a batch is larger.
        total: rows of the job.
    """
    computing = max((plan.limit * plan.slots for plan in plans), default=1)
    rows = min(most, max(_SMALL_BLOCK, int(_REPEATED * total / computing)))
    if not plans or not plans[0].gpus:
        return rows
    batch = plans[0].spec.batch_size  # half a batch takes as long
    return max(1, rows // batch) * batch


def pass_after_pass(
    missing: Mapping[str, int],
    once: Callable[[list[str], int], None],
    look: Callable[[list[str]], Mapping[str, int]],
    patience: int,
) -> None:
    """Run what is missing, look at the ledger, and run what is still missing, until nothing is or nothing moves.

    A pass that finished some rows may be followed by any number of others: on spot machines each of them may be cut
    short. After one that finished none, blocks get smaller.

    Args:
        missing: rows that are missing, by partition.
        once: runs a pass over partitions, with blocks an eighth as large for each pass so far that finished nothing.
        look: returns what partitions still lack.
        patience: passes in a row that may finish nothing.
    """
    stalled = smaller = 0
    while names := [name for name, rows in missing.items() if rows]:
        before = sum(missing.values())
        once(names, smaller)
        missing = look(names)
        still = sum(missing.values())
        if not still:
            return
        stalled = 0 if still < before else stalled + 1
        smaller += stalled > 0
        if stalled >= patience:
            return
        log.warning("%d of %d are still missing: another pass", still, before)
