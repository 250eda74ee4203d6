"""What is seen of a job while it runs: the line in its log, the metrics, and the loss of replicas."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import Any, Self

import ray
from ray.exceptions import RayError

from caslie_ray.monitoring.pool_stats import PoolStats
from caslie_ray.monitoring.progress import Progress
from caslie_ray.monitoring.prometheus import Metrics

__all__ = ["ProgressMonitor"]

log = logging.getLogger(__name__)

_EVERY_S = 1.0
_PATIENCE_S = 10.0


class ProgressMonitor:
    """Looks at the pools every second, in a thread of its own, as a context.

    Args:
        router: hands work to the pools; None where no model is asked.
        progress: the line that a person reads.
        run: the run, as it may be shown.
        job: what is being done: `caption`, or in the staged schedule the model at work.
    """

    def __init__(self, router: Any, progress: Progress, run: str, job: str) -> None:
        self._router = router
        self._progress = progress
        self._metrics = Metrics(run, job)
        self._errors = self._saved = 0
        self._replicas = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        told_to_end = kind is not None and not issubclass(kind, Exception)
        self._thread.join(0.0 if told_to_end else None)

    def add(self, views: int, errors: int, saved: int) -> None:
        """Say that so many more views are finished, of which some are errors, and how many votes were not asked for."""
        self._errors += errors
        self._saved += saved
        self._metrics.done(views, errors, saved)
        self._progress.add(views, self._note())

    def _note(self) -> str:
        parts = [f"{self._errors:,} errors"]
        if self._saved:
            parts.append(f"{self._saved:,} votes saved")
        return " · ".join([*parts, self._replicas] if self._replicas else parts)

    def _look_on(self) -> None:
        while not self._over.is_set():
            self._look()
            self._progress.tick(self._note())
            self._over.wait(_EVERY_S)
        self._look()

    def _look(self) -> None:
        planned = self._progress.total or 0
        self._metrics.views(planned, max(0, planned - self._progress.done))
        if self._router is None:
            return
        with suppress(RayError):  # no news: what was written stands all the same
            news, pools = ray.get(self._router.glance.remote(), timeout=_PATIENCE_S)
            for line in news:
                log.warning("%s", line)
            self._replicas = ", ".join(_replicas(stats, wanted) for stats, wanted in pools)
            for stats, _ in pools:
                self._metrics.model(stats)


def _replicas(stats: PoolStats, wanted: int) -> str:
    if stats.ready == wanted:
        return f"{stats.name} {stats.ready}"
    return f"{stats.name} {stats.ready} of {wanted}"
