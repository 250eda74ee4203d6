"""Passes over the partitions of a run through Ray Data, and the models that they ask.

A pass does what is missing; then the ledger is looked at, and what is still missing is done by another pass.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, cast

import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError

from caslie_ray.cluster.capacity import capacity
from caslie_ray.cluster.connection import connect, total_resources
from caslie_ray.engines import Choice, Generation, Request
from caslie_ray.engines.preflight import preflight
from caslie_ray.errors import EngineError, PoolDown, RunError
from caslie_ray.monitoring.pool_stats import PoolStats
from caslie_ray.pipeline.placement import PoolPlan, pool_plans, refuse_what_cannot_fit, size_pools
from caslie_ray.pipeline.router import start_router
from caslie_ray.profiles import FaultSettings
from caslie_ray.roles import Role
from caslie_ray.storage.run import Run

__all__ = ["Models", "Order", "RouterAsk", "block_rows_for", "check_models", "pass_after_pass", "run_pass", "tasks_for"]

log = logging.getLogger(__name__)

# They wait for models, which may hold every CPU: asking for any could mean to wait without end.
_TASK_CPUS = 0
_TASK_RETRIES = 3
_STATS_S = 30.0
# More would only wait for the same replicas, each with a block of images in its memory.
_MAX_TASKS = 512


class Order(Protocol):
    """What is to be done in a pass, the same for every partition; a frozen dataclass with a field `run`."""

    @property
    def run(self) -> Run:
        """Where it is read and written."""
        ...

    @property
    def written(self) -> str:
        """The table that a pass writes."""
        ...

    def work(self, partition: str, ask: RouterAsk | None) -> Iterator[dict[str, int]]:
        """Do what is missing in a partition; yield the counts of `Watch.add` after each block."""
        ...


class RouterAsk:
    """Asks the models through the router."""

    def __init__(self, router: Any) -> None:
        self._router = router

    def generate(self, role: Role, requests: Sequence[Request]) -> list[Generation]:
        """Return one text a request."""
        batch = ray.put(list(requests))
        answers: list[Generation] = ray.get(self._router.generate.remote(role.pool, [batch], len(requests)))
        return answers

    def choose(self, role: Role, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        """Return one choice a request."""
        batch = ray.put(list(requests))
        answers: list[Choice] = ray.get(self._router.choose.remote(role.pool, [batch], len(requests), tuple(choices)))
        return answers


class Models:
    """The router and its pools for some roles, as a context.

    Args:
        faults: what is done about replicas that fail.
        roles: who is asked.
        rows: rows that they are to answer; pools without an upper limit get no more replicas than that keeps busy.
        needed: names of the roles that the job does not go on without; None for all.
    """

    def __init__(
        self, faults: FaultSettings, roles: Sequence[Role], rows: int, needed: Collection[str | None] | None = None
    ) -> None:
        self._faults = faults
        self._roles = roles
        self._rows = rows
        self._needed = needed
        self.plans: list[PoolPlan] = []
        """The pools with their sizes; known once the context is entered."""
        self.router: Any = None
        self.stats: dict[str, PoolStats] = {}
        """What the pools did, by their names; filled at the end."""

    def __enter__(self) -> Any:
        check_models(self._roles, self._needed)
        connection = connect()
        plans = self.plans = size_pools(pool_plans(self._roles, self._needed), self._rows, capacity(connection))
        if plans:
            refuse_what_cannot_fit(plans, connection)
            log.info("loading %s", ", ".join(plan.name for plan in plans))
            for role in self._roles:
                if role.why:
                    log.info("%s on %s: %s", role.name, role.spec.engine, role.why)
            self.router = start_router(plans, self._faults, connection)
        return self.router

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.router is None:
            return
        if kind is not None and not issubclass(kind, Exception):  # told to end: who told may not wait
            ray.kill(self.router)
            return
        try:
            for key, stats in ray.get(self.router.stats.remote(), timeout=_STATS_S).items():
                self.stats[f"{key}-{stats.name}"] = stats
        except RayError as lost:  # what was written stands all the same
            log.warning("the figures of this session are lost: %s", str(lost).split("\n")[0])
        try:
            with suppress(RayError):
                ray.get(self.router.stop.remote(), timeout=_STATS_S)
        finally:
            ray.kill(self.router)


def check_models(roles: Sequence[Role], needed: Collection[str | None] | None = None) -> None:
    """End a job before anything is paid for if a model can never be loaded; replicas would only find out the same.

    Args:
        roles: the models that a job will ask.
        needed: names of those that it does not go on without, None for all; for the others there is a warning.

    Raises:
        EngineError: a needed model can never be loaded; the message names it and the mend.
    """
    for role in roles:
        try:
            preflight(role.spec)
        except EngineError as error:
            if needed is None or role.name in needed:
                raise
            log.warning("%s: %s", role.name, error)


def tasks_for(plans: Sequence[PoolPlan]) -> int:
    """Return how many partitions are worked on at once, so that no replica, and no core, waits for work."""
    joined = connect().joined
    batches = sum(plan.limit * plan.slots for plan in plans) + 1
    # A cluster that grows has other cores later.
    return max(2, min(batches, _MAX_TASKS if joined else int(total_resources().get("CPU", 1)) + 2))


def block_rows_for(plans: Sequence[PoolPlan], most: int) -> int:
    """Return the rows of a block: on a GPU a multiple of the first pool's batch, since half a batch takes as long.

    Args:
        plans: the pools that rows go through.
        most: upper limit, unless a batch is larger.
    """
    if not plans or not plans[0].gpus:
        return most
    batch = plans[0].spec.batch_size
    return max(1, most // batch) * batch


def pass_after_pass(
    missing: Mapping[str, int],
    once: Callable[[list[str], int], None],
    look: Callable[[list[str]], Mapping[str, int]],
    patience: int,
) -> None:
    """Run what is missing, look at the ledger, and run what is still missing, until nothing is or nothing moves.

    A pass that finished some rows may be followed by any number of others, for on spot machines each of them may be
    cut short. After one that finished none the blocks get smaller.

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


def run_pass(
    order: Order, router: Any, names: Sequence[str], files: Sequence[dict[str, list[str]]], tasks: int
) -> Iterator[dict[str, int]]:
    """Work on partitions through Ray Data; yield a report a block: rows, errors, votes saved.

    What is lost with a node is not told: the ledger shows it.

    Raises:
        RunError: a store refuses.
        PoolDown: a model that is needed cannot be kept alive.
    """
    # A task that starts again must see what it wrote before.
    known = [json.dumps({table: paths for table, paths in part.items() if table != order.written}) for part in files]
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
    # Each report is passed on as it comes, and not a partition's reports at its end.
    reports.context.target_max_block_size = 1
    # A task lost with its node is no reason to stop: the ledger shows what is missing, and the next pass does it.
    reports.context.max_errored_blocks = -1
    # Waiting for a machine may take longer than any fixed limit; the router has time limits of its own.
    reports.context.execution_no_progress_timeout_s = -1
    try:
        for batch in reports.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for report in cast(pa.Table, batch).to_pylist():
                if report["failure"]:
                    raise (PoolDown if report["down"] else RunError)(report["failure"])
                yield {name: report[name] for name in _COUNTS}
    except RayError as lost:
        log.warning("a pass was cut short: %s", str(lost).split("\n")[0])


_COUNTS = ("views", "errors", "saved")


def _work_task(batch: pa.Table, order: Order, router: Any) -> Iterator[pa.Table]:
    ask = RouterAsk(router) if router is not None else None
    for part in batch.to_pylist():
        here: Order = replace(cast(Any, order), run=order.run.with_file_listing(json.loads(part["files"])))
        try:
            for report in here.work(part["partition"], ask):
                yield _report(report)
        except Exception as error:  # Ray Data would drop the block and its error; the job is to end with it
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, RayError):
                raise  # the cluster's doing: the next pass looks at what is missing
            plain = isinstance(cause, (RunError, PoolDown))
            yield _report({}, str(cause) if plain else f"{type(cause).__name__}: {cause}", isinstance(cause, PoolDown))


def _report(counts: dict[str, int], failure: str = "", down: bool = False) -> pa.Table:
    return pa.table({**{name: [counts.get(name, 0)] for name in _COUNTS}, "failure": [failure], "down": [down]})
