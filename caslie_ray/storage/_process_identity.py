"""Recognising a process again: its machine, process id and start time."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import psutil

__all__ = ["machine_id", "process_status", "start_time"]

# The boot time is read twice, in whole seconds.
_SAME_START_S = 1.5


def machine_id() -> str:
    """Return a name for the scope of process ids: the host, its boot, and the container."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def start_time(process: psutil.Process) -> float:
    """Return when a process started, in seconds since boot, which a step of the system clock does not change."""
    # Linux counts from boot; other systems record the clock at the start.
    return process.create_time() - (psutil.boot_time() if psutil.LINUX else 0.0)


def process_status(pid: int, started: float) -> str | None:
    """Return the status of the process on this machine with this id and start time; None if it has ended."""
    try:
        process = psutil.Process(pid)
        status = process.status()
        is_gone = status == psutil.STATUS_ZOMBIE or abs(start_time(process) - started) >= _SAME_START_S
    except psutil.NoSuchProcess:
        return None
    return None if is_gone else str(status)
