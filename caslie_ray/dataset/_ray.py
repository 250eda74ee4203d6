"""A two-step map with Ray Data: each item is split into parts, which are worked on while the rest is read."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray.data
from ray.data import Dataset, TaskPoolStrategy

from caslie_ray.cluster.connection import connect
from caslie_ray.cluster.partition_map import WorkersLost, fitting_memory, portable

__all__ = ["RETRIES", "TASK_CPUS", "each_of_stream"]

Item = TypeVar("Item")
Part = TypeVar("Part")
Result = TypeVar("Result")

# Small blocks, so that one step starts on what the step before it has just finished.
_BLOCK_BYTES = 4 << 20
# By default, Ray retries a task that kills its worker forever.
RETRIES = 2
TASK_CPUS = 0.5


def each_of_stream(
    items: Sequence[Item],
    split: Callable[[Item], Iterator[Part]],
    work: Callable[[Part], Result],
    *,
    concurrency: int,
    memory: int,
    part_memory: int = 0,
    retries: int = RETRIES,
    block_bytes: int = _BLOCK_BYTES,
) -> Iterator[Result]:
    """Split every item into parts, one task per item, and yield the results of the parts as they finish.

    Args:
        items: anything that pickles.
        split: turns an item into parts.
        work: what to do with a part; its exceptions, and those of `split`, are raised here unchanged.
        concurrency: the most tasks of each step at the same time.
        memory: bytes that a task needs to split an item; no more such tasks run on a machine than it has memory for.
        part_memory: the same of a task that works on a part.
        retries: retries of a task whose worker died. Tasks that Ray's memory monitor kills are retried forever,
            unless this is 0.
        block_bytes: bytes of parts that a task works on together; with 1, each part has its own task.

    Raises:
        WorkersLost: at the end, if an item or a part has no result because its worker died each time.
    """
    rows = [{"place": place, "item": pickle.dumps(item)} for place, item in enumerate(items)]
    if not rows:
        return
    connect()
    start = ray.data.from_items(rows, override_num_blocks=len(rows))
    readers = min(concurrency, len(rows))
    # A reader that waits for its parts to be taken keeps its memory, so both steps must fit on a node together.
    split_memory = fitting_memory(memory, leave=part_memory)
    work_memory = fitting_memory(part_memory, leave=readers * memory)
    # Unequal shares of a CPU keep Ray Data from fusing the two steps into one.
    pool = TaskPoolStrategy(size=readers)
    parts = start.flat_map(_Split(split), num_cpus=0.25, memory=split_memory, compute=pool, max_retries=retries)
    pool = TaskPoolStrategy(size=concurrency)
    mapped = parts.map(_Guarded(work), num_cpus=TASK_CPUS, memory=work_memory, compute=pool, max_retries=retries)
    expected = dict.fromkeys(range(len(rows)), -1)
    seen = dict.fromkeys(range(len(rows)), 0)
    for place, result in _results(mapped, block_bytes):
        if isinstance(result, _Count):
            expected[place] = result.parts
        else:
            seen[place] += 1
            yield result
    if expected != seen:
        raise WorkersLost([place for place in expected if expected[place] != seen[place]])


class _Count:
    """How many parts an item had."""

    def __init__(self, parts: int) -> None:
        self.parts = parts


class _Guarded:
    """Pickles results and exceptions, so that Arrow infers no types and Ray wraps no errors."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        item = pickle.loads(row["item"])
        if isinstance(item, (_Count, Exception)):
            return {"place": row["place"], "result": row["item"]}
        try:
            result = self._work(item)
        except Exception as error:  # raised again on the driver
            result = portable(error)
        return {"place": row["place"], "result": pickle.dumps(result)}


class _Split:
    """Divides a row's item into a row per part, followed by a row with their number."""

    def __init__(self, split: Callable[[Any], Iterator[Any]]) -> None:
        self._split = split

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        count = 0
        try:
            for part in self._split(pickle.loads(row["item"])):
                count += 1
                yield {"place": row["place"], "item": pickle.dumps(part)}
            last: _Count | Exception = _Count(count)
        except Exception as error:  # raised again on the driver
            last = portable(error)
        yield {"place": row["place"], "item": pickle.dumps(last)}


def _results(dataset: Dataset, block_bytes: int = _BLOCK_BYTES) -> Iterator[tuple[int, Any]]:
    dataset.context.target_max_block_size = block_bytes
    # A worker that dies loses its block; the caller learns at the end which items are missing.
    dataset.context.max_errored_blocks = -1
    # A slow item, or waiting for a machine, must not end the job.
    dataset.context.execution_no_progress_timeout_s = -1
    for row in dataset.iter_rows():
        result = pickle.loads(row["result"])
        if isinstance(result, Exception):
            raise result
        yield int(row["place"]), result
