"""The parallel map of all jobs: a function over partitions, in this process or as Ray tasks."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from caslie_ray.cluster.connection import connect, total_resources
from caslie_ray.errors import RunError

__all__ = ["WorkersLost", "fitting_memory", "map_partitions", "portable"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_NAMED = 3
_CANCELS, _CANCEL_PAUSE_S = 5, 0.4
_DEATHS = (LocalRayletDiedError, NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError)


class WorkersLost(RunError):
    """The worker process died on some items each time they were tried.

    Attributes:
        items: their indices.
    """

    def __init__(self, items: list[int], names: Sequence[str] = ()) -> None:
        named = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
        super().__init__(f"{len(items)} tasks ended with their worker process" + (f" ({named})" if named else ""))
        self.items = items
        self._names = names

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.items, self._names)


def map_partitions(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    distributed: bool = False,
    concurrency: int = 64,
    num_cpus: float = 0.0,
    memory: int = 0,
    retries: int = 3,
) -> Iterator[Result]:
    """Yield ``function(item)`` for every item, in no fixed order.

    An exception of the function is raised here with its own type and with the item's name as a note; results of other
    items that are not yielded yet are dropped. If a worker process or its node dies, the item is tried again.

    Args:
        function: takes one item, which names a partition, and returns little: the driver receives it.
        items: strings, or tuples that begin with one, are named by it in errors; others by their index.
        distributed: run as Ray tasks; otherwise in this process, one after the other, which starts no Ray.
        concurrency: tasks in flight. Tasks that request no CPU are also limited to one per CPU of the cluster.
        num_cpus: CPUs that a task requests. 0 never waits for the models of a running job, which may hold all CPUs.
        memory: bytes that a task requests; Ray runs no more tasks on a node than it has memory for.
        retries: tries of an item after the first, where its worker dies.

    Raises:
        WorkersLost: after all other results, if the workers of some items died in every try.
    """
    if not distributed:
        for index, item in enumerate(items):
            yield _Named(function, _name_of(item, index))(item)
        return
    if not items:
        return
    connect()
    yield from _distributed(function, items, concurrency, num_cpus, memory, retries)


def _distributed(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    concurrency: int,
    num_cpus: float,
    memory: int,
    retries: int,
) -> Iterator[Result]:
    if not num_cpus:
        concurrency = min(concurrency, max(2, int(total_resources().get("CPU", 1))))
    # Ray's own retries are unlimited where its memory monitor kills a task.
    task = ray.remote(num_cpus=num_cpus, memory=fitting_memory(memory) or 0, max_retries=0)(_run)
    shared = ray.put(function)
    waiting = deque(_Try(index, item, 0) for index, item in enumerate(items))
    running: dict[ray.ObjectRef[_Outcome[Result]], _Try[Item]] = {}
    lost: list[int] = []
    try:
        while waiting or running:
            while waiting and len(running) < concurrency:
                attempt = waiting.popleft()
                running[task.remote(shared, _name_of(attempt.item, attempt.place), attempt.item)] = attempt
            done, _ = ray.wait(list(running), num_returns=1)
            attempt = running.pop(done[0])
            try:
                outcome = ray.get(done[0])
            except RayError as error:
                cause = error.cause if isinstance(error, RayTaskError) else error
                if not isinstance(cause, _DEATHS):
                    raise cause from None
                if attempt.failures < retries:
                    waiting.append(attempt._replace(failures=attempt.failures + 1))
                else:
                    lost.append(attempt.place)
                continue
            if outcome.error is not None:
                raise outcome.error
            yield outcome.result
    finally:
        _cancel(list(running))
    if lost:
        raise WorkersLost(sorted(lost), [_name_of(items[index], index) for index in sorted(lost)])


def _cancel(tasks: list[Any]) -> None:
    """End tasks and their workers.

    Ray 2.60 loses a request for a task that a worker has received and not started: it is repeated. Without force, some
    tasks went on for minutes on a busy machine.
    """
    for _ in range(_CANCELS):
        for task in tasks:
            with suppress(RayError):
                ray.cancel(task, force=True)
        if tasks:
            _, tasks = ray.wait(tasks, num_returns=len(tasks), timeout=_CANCEL_PAUSE_S)


def fitting_memory(wanted: int, leave: int = 0) -> int | None:
    """Return the bytes of memory that a task may request so that the largest node with CPUs can run it.

    Args:
        wanted: what the task needs.
        leave: bytes to leave for other tasks on that node, at most half of its memory.
    """
    if not wanted:
        return None
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = max((int(one.get("memory", 0)) for one in resources if one.get("CPU")), default=wanted)
    return min(wanted, max(largest - leave, largest // 2 if leave else 0)) or None


def portable(error: Exception) -> Exception:
    """Return an exception that pickles: the same one where possible, or else one with its type and message as text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # constructors with other arguments than the message
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class _Try(NamedTuple, Generic[Item]):
    place: int
    item: Item
    failures: int


class _Outcome(NamedTuple, Generic[Result]):
    result: Any
    error: Exception | None


class _Named(Generic[Item, Result]):
    """Calls a function and adds the item's name to its exceptions."""

    def __init__(self, function: Callable[[Item], Result], name: str) -> None:
        self._function = function
        self._name = name

    def __call__(self, item: Item) -> Result:
        try:
            return self._function(item)
        except Exception as error:
            error.add_note(f"while working on {self._name}")
            raise


def _run(function: Callable[[Any], Any], name: str, item: Any) -> _Outcome[Any]:
    """Return exceptions as values: Ray would wrap them, and fail on those that do not pickle."""
    try:
        return _Outcome(_Named(function, name)(item), None)
    except Exception as error:
        return _Outcome(None, portable(error))


def _name_of(item: object, index: int) -> str:
    first = item[0] if isinstance(item, tuple) and item else item
    return first if isinstance(first, str) else f"item {index}"
