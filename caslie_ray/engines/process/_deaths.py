"""Causes of death of engine processes."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Death", "by_memory", "by_timeout", "describe_exit", "oom_kills", "telling_lines"]

_LINE_CHARS = 200
_LINES = 5
# The last line of a traceback, or the first of faulthandler's report.
_TELLING = re.compile(r"(?:^|\s)(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt)\b|^Fatal Python error")


@dataclass(frozen=True, slots=True, eq=False)
class Death:
    """Why an engine process ended.

    Attributes:
        reason: one line, such as ``exit code 1`` or ``SIGSEGV``.
        timed_out: it was killed because a call took too long.
        memory: it was out of memory.
        log: what it wrote last on standard error, see `telling_lines`.
    """

    reason: str
    timed_out: bool = False
    memory: bool = False
    log: tuple[str, ...] = ()

    def __str__(self) -> str:
        line = self.log[0] if self.log and _TELLING.search(self.log[0]) else "".join(self.log[-1:])
        line = line if len(line) <= _LINE_CHARS else line[: _LINE_CHARS - 1] + "…"
        return f"{self.reason}: {line}" if line else self.reason

    def report(self) -> str:
        """Return the reason and what it wrote last, for a log."""
        return " | ".join([self.reason, *self.log])

    def outcome(self) -> str:
        """Return what the process did to the call, as the words after ``it`` in a reason."""
        return self.reason if self.timed_out else f"ended its process ({self})"


def by_timeout(seconds: float) -> Death:
    """Cause of death: a call took too long."""
    return Death(f"gave no answer in {seconds:g} s", timed_out=True)


def by_memory(detail: str) -> Death:
    """Cause of death: memory ran low."""
    return Death(f"out of memory: {detail}", memory=True)


def describe_exit(code: int | None, log: Sequence[str], *, oom_killed: bool) -> Death:
    """Cause of death of a process that exited, crashed, or was killed by another process.

    Args:
        code: its exit code, negative for a signal; None if it is not known.
        log: its lines on standard error.
        oom_killed: whether the kernel's OOM killer has run since the process started.
    """
    lines = telling_lines(log)
    if code is None:
        return Death("an end without an exit code", log=lines)
    if code >= 0:
        return Death(f"exit code {code}", log=lines)
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    if -code == signal.SIGKILL and oom_killed:
        return Death(f"out of memory: the kernel ended it ({name})", memory=True, log=lines)
    return Death(name, log=lines)


def telling_lines(log: Sequence[str]) -> tuple[str, ...]:
    """Return a few lines: from the last that names an exception or a fatal error on, or else the last ones."""
    start = next((n for n in reversed(range(len(log))) if _TELLING.search(log[n])), max(0, len(log) - _LINES))
    return tuple(log[start : start + _LINES])


def oom_kills() -> int:
    """Return the kernel's count of OOM kills since boot; 0 if unknown."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
