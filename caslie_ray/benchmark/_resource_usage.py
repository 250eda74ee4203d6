"""Monitors a job from outside: rows in its run, and memory and CPU time of its processes."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from caslie_ray.errors import RunError
from caslie_ray.storage.run import Run

__all__ = ["ProcessTree", "ResourceMonitor", "RowCounter", "Usage"]

_IDS = {"captions": ["view_id"], "predictions": ["sample_id", "model", "variant"]}
_ANSWERS, _ANSWER_IDS = "answers", ["key"]
_KEPT = "kept"  # answers of earlier lineups, not of this job
_ROWS_EVERY_S = 0.1
_USAGE_EVERY_S = 0.5
# Sampling takes at most this share of a core from the job that it measures.
_SHARE = 0.02
_RAYS_OWN = ("raylet", "gcs_server", "DashboardAgent", "RuntimeEnvAgent", "log_monitor", "monitor.py", "dashboard")
_MIB = 2.0**20


class RowCounter:
    """Counts distinct rows in the tables of a job.

    Reads only id columns, and each file once; rows of files that are merged meanwhile do not count twice.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._seen: set[str] = set()
        self._ids: dict[str, set[tuple[str, ...]]] = defaultdict(set)
        self.events: dict[str, list[tuple[float, int]]] = {}
        """Per table: (seconds since 1970, rows so far)."""

    def update(self) -> None:
        """Count the rows that are there now."""
        for table in self._tables():
            columns = _IDS.get(table, _ANSWER_IDS)
            for path in self._run.files(table):
                if path in self._seen:
                    continue
                with suppress(RunError, OSError):  # merged into another file since it was listed
                    rows = self._run.read_file(path, columns)
                    self._ids[table].update(zip(*(rows[name].to_pylist() for name in columns), strict=True))
                    self._seen.add(path)
            count = len(self._ids[table])
            events = self.events.setdefault(table, [])
            if count > (events[-1][1] if events else 0):
                events.append((time.time(), count))

    def _tables(self) -> list[str]:
        folders = [info.base_name for info in self._run.listed(self._run.path(_ANSWERS))]
        return [*(f"{_ANSWERS}/{name}" for name in sorted(folders) if name != _KEPT), *_IDS]


class Usage(NamedTuple):
    """Memory in MiB and CPU time in seconds at one time, without pages of the object store.

    Attributes:
        at: seconds since 1970.
        driver: memory of the job's own process.
        workers: memory of all Ray workers and their subprocesses.
        ray: memory of Ray's own processes.
        cpu_s: CPU time of all processes so far, including ended ones.
    """

    at: float
    driver: float
    workers: float
    ray: float
    cpu_s: float


class ProcessTree:
    """A process and its descendants."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._cpu: dict[int, float] = {}
        self._all: dict[int, psutil.Process] = {}

    def measure(self) -> Usage:
        """Measure all running processes of the tree."""
        memory = {"driver": 0.0, "workers": 0.0, "ray": 0.0}
        with suppress(psutil.NoSuchProcess):
            for process in [self._root, *self._root.children(recursive=True)]:
                self._all.setdefault(process.pid, process)
                with suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
                    memory[self._kind(process)] += _resident(process) / _MIB
                    spent = process.cpu_times()
                    self._cpu[process.pid] = spent.user + spent.system
        return Usage(time.time(), **memory, cpu_s=sum(self._cpu.values()))

    def wait(self, timeout_s: float) -> None:
        """Wait until all processes have ended, so that they do not disturb the next measurement."""
        end = time.monotonic() + timeout_s
        while any(map(_is_running, self._all.values())) and time.monotonic() < end:
            time.sleep(_ROWS_EVERY_S)

    def _kind(self, process: psutil.Process) -> str:
        if process.pid == self._root.pid:
            return "driver"
        title = " ".join(process.cmdline()[:2])
        return "ray" if any(name in title for name in _RAYS_OWN) else "workers"


def _is_running(process: psutil.Process) -> bool:
    # An ended process whose parent does not wait for it stays a zombie.
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _resident(process: psutil.Process) -> int:
    """Return the resident bytes, without shared memory if the system distinguishes it."""
    with suppress(OSError, KeyError, ValueError):
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        return sum(int(lines[name].split()[0]) for name in ("RssAnon", "RssFile")) * 1024
    return int(process.memory_info().rss)


class ResourceMonitor:
    """Context manager that samples rows and processes in a background thread.

    Args:
        watches: the row counters.
        processes: the processes.
    """

    def __init__(self, watches: Sequence[RowCounter], processes: ProcessTree) -> None:
        self._watches = watches
        self._processes = processes
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.usage: list[Usage] = []

    def __enter__(self) -> ResourceMonitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for watch in self._watches:
            watch.update()

    def _watch(self) -> None:
        pause = _ROWS_EVERY_S
        due = 0.0
        while not self._ended.wait(pause):
            started, spent = time.monotonic(), time.thread_time()
            for watch in self._watches:
                with suppress(RunError, OSError):
                    watch.update()
            pause = max(_ROWS_EVERY_S, (time.thread_time() - spent) / _SHARE)
            if started >= due:
                spent = time.thread_time()
                self.usage.append(self._processes.measure())
                due = started + max(_USAGE_EVERY_S, (time.thread_time() - spent) / _SHARE)

    def peaks(self, begin: float, end: float) -> dict[str, float | None]:
        """Return the peak MiB of driver, workers and Ray's own processes between two times; None if not sampled."""
        seen = [one for one in self.usage if begin <= one.at <= end]
        return {
            name: round(max(getattr(one, name) for one in seen), 1) if seen else None
            for name in ("driver", "workers", "ray")
        }

    def cpu_between(self, begin: float, end: float) -> float | None:
        """Return the CPU seconds of all processes between two times; None if not sampled."""
        before = [one for one in self.usage if one.at <= begin]
        after = [one for one in self.usage if one.at >= end] or self.usage[-1:]
        if not before or not after or after[0].at <= before[-1].at:
            return None
        return (after[0].cpu_s - before[-1].cpu_s) * (end - begin) / (after[0].at - before[-1].at)
