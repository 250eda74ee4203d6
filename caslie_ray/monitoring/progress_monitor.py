"""Polls a job's pools for its progress line, its metrics, and lost replicas."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

from ray.exceptions import RayError

from caslie_ray.monitoring.pool_stats import PoolStats
from caslie_ray.monitoring.progress import Progress
from caslie_ray.monitoring.prometheus import Metrics

__all__ = ["ProgressMonitor"]

log = logging.getLogger(__name__)

_EVERY_S = 1.0

Poll = Callable[[], tuple[Sequence[str], Sequence[tuple[PoolStats, int]]]]


class ProgressMonitor:
    """Context manager that polls the pools every second, in its own thread.

    Args:
        poll: returns messages, and the counters and upper limit of replicas of each pool.
        progress: the line that a person reads.
        run: the run, as it may be shown.
        job: what is being done: `caption`, or in the staged schedule the current model.
    """

    def __init__(self, poll: Poll, progress: Progress, run: str, job: str) -> None:
        self._read_pools = poll
        self._progress = progress
        self._metrics = Metrics(run, job)
        self._errors = self._saved = 0
        self._replicas = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll_until_done, name="progress-monitor", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        interrupted = kind is not None and not issubclass(kind, Exception)
        self._thread.join(0.0 if interrupted else None)

    def add(self, views: int, errors: int, saved: int) -> None:
        """Add finished views, error rows among them, and votes that early exit saved."""
        self._errors += errors
        self._saved += saved
        self._metrics.done(views, errors, saved)
        self._progress.add(views, self._note())

    def _note(self) -> str:
        parts = [f"{self._errors:,} errors"]
        if self._saved:
            parts.append(f"{self._saved:,} votes saved")
        return " · ".join([*parts, self._replicas] if self._replicas else parts)

    def _poll_until_done(self) -> None:
        while not self._over.is_set():
            self._poll()
            self._progress.tick(self._note())
            self._over.wait(_EVERY_S)
        self._poll()

    def _poll(self) -> None:
        planned = self._progress.total or 0
        self._metrics.views(planned, max(0, planned - self._progress.done))
        with suppress(RayError):
            messages, pools = self._read_pools()
            for line in messages:
                log.warning("%s", line)
            self._replicas = ", ".join(_replicas(stats, wanted) for stats, wanted in pools)
            for stats, _ in pools:
                self._metrics.model(stats)


def _replicas(stats: PoolStats, wanted: int) -> str:
    if stats.ready == wanted:
        return f"{stats.name} {stats.ready}"
    return f"{stats.name} {stats.ready} of {wanted}"
