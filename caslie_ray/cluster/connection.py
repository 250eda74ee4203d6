"""Meeting the cluster: connecting to Ray, and work that goes partition by partition."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import ray
import ray.data
from ray.exceptions import RayError, RayTaskError

from caslie_ray.errors import RunError

__all__ = ["Connection", "connect", "draining_nodes", "map_partitions", "quieten", "room"]

_S = TypeVar("_S")
_T = TypeVar("_T")


class Connection(NamedTuple):
    """How this process is connected to Ray.

    Attributes:
        joined: True for a cluster that was joined, to which nodes may be added; False for a Ray of this machine alone.
    """

    joined: bool


def connect() -> Connection:
    """Join the cluster that RAY_ADDRESS names, or start a Ray of this process's own; connects once.

    Raises:
        RunError: RAY_ADDRESS is that of a dashboard, which takes submitted jobs only.
    """
    given = os.environ.get("RAY_ADDRESS", "")
    connection = Connection(joined=bool(given))
    if not ray.is_initialized():
        if given.startswith(("http://", "https://")):
            raise RunError(
                f"RAY_ADDRESS={given} is the address of a dashboard: submit the job to it with `ray job submit`, or"
                " `unset RAY_ADDRESS` to use this machine alone"
            )
        asked = signal.getsignal(signal.SIGTERM)
        # Without an address Ray would join what any other user has started on this machine.
        address, dashboard = (None, None) if connection.joined else ("local", False)
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False, include_dashboard=dashboard)
        if callable(asked) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, asked)  # Ray has put its own in its place, which exits at once
    quieten()
    return connection


def quieten() -> None:
    """Turn off Ray Data's own progress output: the jobs show progress themselves."""
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # All that this package logs as a warning is how to turn its progress bars on.
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    # Ray Data 2.60 warns of `max_retries` and has no other way to bound the retries of a task.
    warnings.filterwarnings("ignore", message="`ray_remote_args`")
    warnings.filterwarnings("ignore", message="The maximum number of concurrent tasks for")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.issue_detectors_config.detectors = []


def room() -> dict[str, float]:
    """Return what the whole cluster holds, such as ``{"CPU": 2.0, "GPU": 1.0}``."""
    return {key: float(value) for key, value in ray.cluster_resources().items()}


def draining_nodes() -> dict[str, float]:
    """Return the nodes that are announced to be taken away, by id, and when, in seconds since 1970; 0 is now."""
    try:
        # Ray 2.60 tells it nowhere else; Ray Train reads it there too.
        told: dict[str, int] = ray._private.state.state.get_draining_nodes()
    except RayError:  # the head is busy: it is asked again
        return {}
    return {node: deadline_ms / 1000 for node, deadline_ms in told.items()}


def map_partitions(
    function: Callable[[_S], _T], parts: Sequence[_S], *, distributed: bool = False, at_once: int = 64
) -> Iterator[_T]:
    """Yield ``function(part)`` for every part, in no fixed order; what it raises is raised here.

    Args:
        function: reads what belongs to one partition and returns little.
        parts: what names the partitions.
        distributed: run as Ray tasks; otherwise here, which for a small run takes less than starting Ray.
        at_once: Ray tasks in flight.
    """
    if not distributed or len(parts) <= 1:
        yield from map(function, parts)
        return
    connect()
    # No CPUs are asked for: the models of a running job may hold all of them, and would never be waited out.
    task = ray.remote(num_cpus=0, max_retries=3)(function)
    at_once = min(at_once, max(2, int(room().get("CPU", 1))))
    waiting = list(reversed(parts))
    running: list[ray.ObjectRef[_T]] = []
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(task.remote(waiting.pop()))
        done, running = ray.wait(running, num_returns=1)
        try:
            found = ray.get(done)
        except RayTaskError as error:
            raise error.cause from None
        yield from found
