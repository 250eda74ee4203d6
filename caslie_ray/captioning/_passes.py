"""One pass over partitions through Ray Data, and the models that it asks."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, cast

import pyarrow as pa
import ray
from ray.exceptions import RayError, RayTaskError

from caslie_ray.captioning._work import RouterAsk, WorkOrder, work
from caslie_ray.cluster import can_grow, connect, room
from caslie_ray.lineup import Role
from caslie_ray.placement import PoolDown, pool_plans, refuse_what_cannot_fit
from caslie_ray.pools import start_router
from caslie_ray.profiles import Profile
from caslie_ray.replicas import PoolStats
from caslie_ray.runs import RunError

__all__ = ["Models", "run_pass"]

log = logging.getLogger(__name__)

# They wait for models, which may hold every CPU: asking for any could mean to wait without end.
_TASK_CPUS = 0
_TASK_RETRIES = 3
_STATS_S = 30.0


class Models:
    """The router and its pools for some roles, as a context.

    Args:
        profile: its parts `faults` and `votes` count.
        roles: who is asked.
        captioner: the name of the role without which no view can be finished.
    """

    def __init__(self, profile: Profile, roles: Sequence[Role], captioner: str | None) -> None:
        self._profile = profile
        self._roles = roles
        self._captioner = captioner
        self.router: Any = None
        self.stats: dict[str, PoolStats] = {}
        """What the pools did, by their names; filled at the end."""

    def __enter__(self) -> Any:
        connect()
        needed = None if self._profile.faults.missing_voter == "fail" else {self._captioner}
        plans = pool_plans(self._roles, needed)
        if plans:
            if not can_grow():
                refuse_what_cannot_fit(plans, room())
            log.info("loading %s", ", ".join(plan.name for plan in plans))
            for role in self._roles:
                if role.why:
                    log.info("%s on %s: %s", role.name, role.spec.engine, role.why)
            self.router = start_router(plans, self._profile.faults)
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


def run_pass(
    order: WorkOrder, router: Any, names: Sequence[str], files: Sequence[dict[str, list[str]]], tasks: int
) -> Iterator[dict[str, int]]:
    """Work on partitions through Ray Data; yield a report a block: views, errors, votes saved.

    What is lost with a node is not told: the ledger shows it.

    Raises:
        RunError: a store refuses.
        PoolDown: a model that is needed cannot be kept alive.
    """
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
    # Each report is passed on as it comes, and not a partition's reports at its end.
    reports.context.target_max_block_size = 1
    # A task lost with its node is no reason to stop: the ledger shows what is missing, and the next pass does it.
    reports.context.max_errored_blocks = -1
    try:
        for batch in reports.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for report in cast(pa.Table, batch).to_pylist():
                if report["failure"]:
                    raise (PoolDown if report["down"] else RunError)(report["failure"])
                yield {name: report[name] for name in _COUNTS}
    except RayError as lost:
        log.warning("a pass was cut short: %s", str(lost).split("\n")[0])


_COUNTS = ("views", "errors", "saved")


def _work_task(batch: pa.Table, order: WorkOrder, router: Any) -> Iterator[pa.Table]:
    ask = RouterAsk(router) if router is not None else None
    for part in batch.to_pylist():
        here = replace(order, run=order.run.knowing(json.loads(part["files"])))
        try:
            for report in work(here, part["partition"], ask):
                yield _report(report)
        except Exception as error:  # Ray Data would drop the block and its error; the job is to end with it
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, RayError):
                raise  # the cluster's doing: the next pass looks at what is missing
            plain = isinstance(cause, (RunError, PoolDown))
            yield _report({}, str(cause) if plain else f"{type(cause).__name__}: {cause}", isinstance(cause, PoolDown))


def _report(counts: dict[str, int], failure: str = "", down: bool = False) -> pa.Table:
    return pa.table({**{name: [counts.get(name, 0)] for name in _COUNTS}, "failure": [failure], "down": [down]})
