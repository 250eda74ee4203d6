"""What one call costs: its time, and the memory of the process that makes it and of that process's children."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Cost", "Measured", "measured"]

_PRELOADED = ("caslie_ray.dataset._fetching", "caslie_ray.dataset._reading", "caslie_ray.dataset._references")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call took.

    Attributes:
        seconds: wall-clock time.
        mib: MiB of resident memory: how much the peak of its process grew, or the peak of its largest child process
            where that is more.
    """

    seconds: float
    mib: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The outcome of a call.

    Attributes:
        value: what it returned; None where it raised.
        error: what it raised, as text with the name of the class; None where it returned.
        cost: what it took.
    """

    value: Any
    error: str | None
    cost: Cost


def measured(work: Callable[..., Any], *arguments: Any, timeout_s: float = 60.0) -> Measured:
    """Call a function in a process of its own, which has imported the modules that read inputs, and measure it.

    Args:
        work: a function of a module, since it is pickled.
        arguments: what it is called with.
        timeout_s: seconds after which the process is killed.

    Raises:
        TimeoutError: the call did not end in time.
        RuntimeError: the process died.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_PRELOADED])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(theirs, work, arguments))
    process.start()
    theirs.close()
    try:
        if not ours.poll(timeout_s):
            raise TimeoutError(f"{work.__name__} did not end within {timeout_s:g} s")
        value, error, cost = ours.recv()
    except EOFError:
        raise RuntimeError(f"the process of {work.__name__} died") from None
    finally:
        process.kill()
        process.join()
        ours.close()
    return Measured(value, error, cost)


def _call(pipe: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    value = error = None
    try:
        value = work(*arguments)
    except Exception as raised:  # the test judges it
        error = f"{type(raised).__name__}: {raised}"
    seconds = time.monotonic() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    pipe.send((value, error, Cost(seconds, max(grown, children) / 1024)))
    pipe.close()
