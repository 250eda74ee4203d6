"""Ends an engine process before the machine runs out of memory, and Ray or the kernel ends its owner."""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from caslie_ray.engines.process._deaths import Death, by_memory
from caslie_ray.engines.process._limits import ProcessLimits
from caslie_ray.engines.process._memory import Usage, machine_usage, tree_bytes

__all__ = ["MemoryWatch"]

_SHORTEST_S, _LONGEST_S = 0.1, 1.0
# Seconds between two looks per share of the memory that is left.
_PACE = 5.0
# Where several engines share a machine, the largest is ended: each waits the longer the smaller it is.
_YIELD_S = 0.15
_FREED_S = 2.0


class MemoryWatch:
    """Polls memory, more often the less is left, and ends the process when a limit is exceeded.

    Of several engines on a machine, the largest is ended first; the others then see that memory is free.

    Args:
        pid: returns the process id of the engine; None if there is no process.
        end: ends the process for a reason.
        tick: called at each look.
        usage: reads the machine's memory.
    """

    def __init__(
        self,
        limits: ProcessLimits,
        pid: Callable[[], int | None],
        end: Callable[[int, Death], None],
        tick: Callable[[], None],
        usage: Callable[[], Usage] = machine_usage,
    ) -> None:
        self._limits = limits
        self._pid = pid
        self._end = end
        self._tick = tick
        self._usage = usage
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine-memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()

    def _run(self) -> None:
        pause = _SHORTEST_S
        while not self._stopped.wait(pause):
            self._tick()
            pid = self._pid()
            pause = self._look(pid) if pid is not None else _LONGEST_S

    def _look(self, pid: int) -> float:
        """End the process where there is too little memory; return the seconds until the next look."""
        limits, usage = self._limits, self._usage()
        own = 0
        room = limits.memory_share - usage.share
        if limits.memory_bytes is not None:
            own = tree_bytes(pid)
            room = min(room, (limits.memory_bytes - own) / usage.total)
            if own > limits.memory_bytes:
                self._end(pid, by_memory(f"it uses {_gib(own)}, its limit is {_gib(limits.memory_bytes)}"))
                return _SHORTEST_S
        if usage.share > limits.memory_share:
            self._yield_to_larger(pid, usage)
        return min(_LONGEST_S, max(_SHORTEST_S, room * _PACE))

    def _yield_to_larger(self, pid: int, usage: Usage) -> None:
        own = tree_bytes(pid)
        time.sleep(_YIELD_S * (1.0 - min(1.0, own / max(1, usage.used))))
        with _one_at_a_time():
            usage = self._usage()
            if usage.share <= self._limits.memory_share or self._pid() != pid:
                return
            self._end(
                pid, by_memory(f"{_gib(usage.used)} of {_gib(usage.total)} are in use, {_gib(own)} of them by it")
            )
            deadline = time.monotonic() + _FREED_S
            while self._usage().share > self._limits.memory_share and time.monotonic() < deadline:
                time.sleep(_SHORTEST_S)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Exclude the watches of this user's other engines on the machine."""
    path = Path(tempfile.gettempdir()) / f"caslie-memory-{os.getuid()}.lock"
    lock = None
    with suppress(OSError):
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
