"""One Ray Data chain: read what is missing, a pool of replicas per model, write.

Ray Data starts the replicas, adds and removes some, replaces those of a lost node, and holds back stages that are too
fast. A block is one row of the dataset, see `caslie_ray.pipeline.blocks`; Ray's dashboard and metrics show blocks.

What limits its scale: every block passes the driver's scheduler as a reference, some thousands per second, and stays
in the object store until the next stage has taken it.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, cast

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError

from caslie_ray.cluster.ray_internals import ExecutionCallback
from caslie_ray.engines.process import ProcessLimits
from caslie_ray.errors import PoolDown, RunError
from caslie_ray.pipeline.blocks import Failed, pack, unpack
from caslie_ray.pipeline.placement import PoolPlan
from caslie_ray.pipeline.replica import failed_block
from caslie_ray.pipeline.stage import stage_class
from caslie_ray.pipeline.work import Work

__all__ = ["COUNTS", "Aborted", "ChainSettings", "Stage", "abort_chain", "run_chain"]

log = logging.getLogger(__name__)

COUNTS = ("views", "errors", "saved")
"""What is counted per block; see `ProgressMonitor.add`."""

_REPORT = pa.schema(
    [
        *((name, pa.int64()) for name in COUNTS),
        ("partition", pa.string()),
        ("failure", pa.string()),
        ("down", pa.bool_()),
    ]
)
# More partitions than this are read in groups, so that the driver puts few objects.
_READS = 4096
# Blocks that wait for a writer. Ray Data starts few calls per turn of its scheduler, and a write takes milliseconds.
_QUEUED_WRITES = 16
_WRITES_AT_ONCE = 4
# Small blocks that wait at a replica for each call that it has at hand.
_MOST_PER_CALL = 8


class Stage(NamedTuple):
    """One model of a chain: its pool, and the roles that it plays."""

    plan: PoolPlan
    names: tuple[str, ...]


class ChainSettings(NamedTuple):
    """How a chain runs.

    Attributes:
        limits: of the engines' processes.
        block_rows: rows of a block, on average.
        no_progress_s: seconds without any block after which the chain is given up.
        monitor: handle of the `Monitor`.
        avoid: ids of the nodes on which a pool's replicas cannot load their model, by the pool's key.
        number: of the chain; see `Monitor.begin`.
        call_rows: upper limit of requests per engine call; None: a block's, or a batch if that is larger.
    """

    limits: ProcessLimits
    block_rows: int
    no_progress_s: float
    monitor: Any
    avoid: Mapping[str, frozenset[str]]
    number: int | None = None
    call_rows: int | None = None


class Aborted(Exception):
    """The driver ended a chain; raised out of `run_chain`."""


class _Abort(ExecutionCallback):
    """Ends the execution of this process's chain from inside its scheduler, which cannot be stopped from outside."""

    wanted: str | None = None

    def on_execution_step(self, executor: Any) -> None:
        if _Abort.wanted is not None:
            raise Aborted(_Abort.wanted)


def abort_chain(reason: str | None) -> None:
    """End the chain that runs in this process, or will; thread-safe.

    Args:
        reason: for the log; None withdraws an earlier call.
    """
    _Abort.wanted = reason


def run_chain(
    work: Work, stages: Sequence[Stage], parts: Mapping[str, dict[str, list[str]]], settings: ChainSettings
) -> Iterator[dict[str, Any]]:
    """Work on partitions; yield the counts of each block, with its partition's name if the work returns it.

    Args:
        work: what is done.
        stages: the models, in the order in which a block passes them.
        parts: the files of each partition by table, by the partition's name.
        settings: how.

    Raises:
        RunError: a store refuses.
        PoolDown: a model that is needed answers nothing any more.
        Aborted: see `abort_chain`.
    """
    data = _build(work, stages, parts, settings)
    batches = data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    try:
        for batch in batches:
            for report in cast(pa.Table, batch).to_pylist():
                if report["failure"] is not None:
                    raise (PoolDown if report["down"] else RunError)(report["failure"])
                partition = {"partition": report["partition"]} if report["partition"] is not None else {}
                yield {name: report[name] for name in COUNTS} | partition
    except ExecutionTimeoutError:
        log.warning("no progress for %g s: the chain is built again", settings.no_progress_s)
    except RayError as lost:
        log.warning("a pass was cut short: %s", str(lost).split("\n")[0])


def _build(
    work: Work, stages: Sequence[Stage], parts: Mapping[str, dict[str, list[str]]], settings: ChainSettings
) -> Any:
    groups = _grouped(parts)
    replicas = sum(stage.plan.limit for stage in stages)
    files = max(1, min(8, len(groups), 1 + replicas // 8))
    data: Any = ray.data.from_items([{"parts": json.dumps(group)} for group in groups], override_num_blocks=len(groups))
    context = data.context
    context.target_max_block_size = 1  # each row is a block of its own
    context.max_errored_blocks = -1  # a block lost with its node is done by the next pass
    context.execution_no_progress_timeout_s = settings.no_progress_s
    context.max_consecutive_actor_init_deaths = -1  # the pool's `LoadPolicy` counts
    # A replica is added once all of them have a block in every slot; Ray Data's default waits for twice as many.
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    context.memory_usage_poll_interval_s = None  # smaps of every worker, each second
    context.custom_execution_callback_classes = [*context.custom_execution_callback_classes, _Abort]
    data = data.map_batches(
        cast(Any, ReadBlocks), fn_constructor_args=(work,), batch_size=None, batch_format="pyarrow", num_cpus=0,
        compute=ActorPoolStrategy(size=files, max_tasks_in_flight_per_actor=2),
    )  # fmt: skip
    for stage in stages:
        data = _with_stage(data, work, stage, settings)
    return data.map_batches(
        cast(Any, WriteRows), fn_constructor_args=(work,), batch_size=1, batch_format="pyarrow", num_cpus=0,
        compute=ActorPoolStrategy(
            size=files, max_tasks_in_flight_per_actor=_QUEUED_WRITES, max_concurrent_calls_per_actor=_WRITES_AT_ONCE,
            enable_true_multi_threading=True,
        ),
    )  # fmt: skip


def _with_stage(data: Any, work: Work, stage: Stage, settings: ChainSettings) -> Any:
    plan = stage.plan
    call_rows = settings.call_rows or max(settings.block_rows, plan.spec.batch_size)
    # One call computes and one is prepared in each slot, and others wait: late voters merge what waits.
    blocks_per_call = max(1, -(-min(call_rows, plan.spec.batch_size) // settings.block_rows))
    at_once = 2 * (plan.slots + 1) * min(blocks_per_call, _MOST_PER_CALL)

    labels, *fallback = _selectors(plan, settings.avoid.get(plan.key, frozenset()))
    return data.map_batches(
        cast(Any, stage_class(plan.name)),
        fn_constructor_args=(work, plan, stage.names, settings.limits, call_rows, settings.monitor,
                             settings.number),
        batch_size=1, batch_format="pyarrow", num_cpus=plan.cpus, num_gpus=plan.gpus or None,
        memory=plan.memory_gib * 2**30 or None, label_selector=labels or None,
        fallback_strategy=[{"label_selector": other} for other in fallback] or None,
        compute=ActorPoolStrategy(
            min_size=1, max_size=plan.limit, initial_size=min(plan.minimum, plan.limit),
            max_tasks_in_flight_per_actor=at_once + 1, max_concurrent_calls_per_actor=at_once,
            enable_true_multi_threading=True,
        ),
    )  # fmt: skip


def _selectors(plan: PoolPlan, avoid: frozenset[str]) -> list[dict[str, str]]:
    """Return the label selectors of a pool's nodes, in order of preference."""
    others = {"ray.io/node-id": f"!in({','.join(sorted(avoid))})"} if avoid else {}
    return [{**labels, **others} for labels in plan.labels or ({},)]


def _grouped(parts: Mapping[str, dict[str, list[str]]]) -> list[dict[str, dict[str, list[str]]]]:
    names = list(parts)
    size = -(-len(names) // _READS)
    return [{name: parts[name] for name in names[at : at + size]} for at in range(0, len(names), size)]


class ReadBlocks:
    """Reads what partitions lack, a block at a time; holds one partition in memory.

    Args:
        work: what is missing, and how it is read.
    """

    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for group in batch["parts"].to_pylist():
            for name, files in json.loads(group).items():
                try:
                    yield from map(pack, self._blocks(name, files))
                except Exception as error:
                    yield failed_block(error)

    def _blocks(self, name: str, files: dict[str, list[str]]) -> Iterator[pa.Table]:
        listed: Work = replace(cast(Any, self._work), run=self._work.run.with_file_listing(files))
        blocks = listed.read(name)
        try:
            first = list(itertools.islice(blocks, 1))
        except RunError:  # Ray reads again what a lost node had read: the files may have been merged since
            return self._work.read(name)
        return itertools.chain(first, blocks)


class WriteRows:
    """Writes the rows of blocks; returns the counts.

    Args:
        work: how a row is written.
    """

    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self, batch: pa.Table) -> pa.Table:
        block = unpack(batch)
        if not isinstance(block, Failed):
            try:
                counts = self._work.write(block)
                return _report(counts)
            except Exception as error:
                failed = unpack(failed_block(error))
                assert isinstance(failed, Failed)
                block = failed
        return _report({}, block)


def _report(counts: Mapping[str, Any], failed: Failed | None = None) -> pa.Table:
    row = {name: counts.get(name, 0) for name in COUNTS} | {"partition": counts.get("partition")}
    failure = {"failure": failed.reason if failed else None, "down": bool(failed and failed.down)}
    return pa.Table.from_pylist([{**row, **failure}], schema=_REPORT)
