"""Progress actor for training workers, and the thread that shows it."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import Any, Self

import ray
from ray.exceptions import RayError

from caslie_ray.monitoring.progress import Progress

__all__ = ["ProgressActor", "TrainingMonitor"]

log = logging.getLogger(__name__)

_POLL_S = 1.0
_TIMEOUT_S = 10.0


class ProgressActor:
    """An actor that holds each model's last step, warnings, and the error that ends the training."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[int, float]] = {}
        self._final: Exception | None = None
        self._warnings: list[str] = []

    def report(self, name: str, done: int, loss: float) -> None:
        """Record how many steps a model has made, and the loss of the last."""
        self._steps[name] = done, loss

    def fail(self, error: Exception) -> None:
        """Record a non-retryable error; the first one counts."""
        self._final = self._final or error

    def final_error(self) -> Exception | None:
        """Return the error that ends the training; None if there is none."""
        return self._final

    def warn(self, text: str) -> None:
        """Add a warning for the job's log; the workers' own logs stay on their nodes."""
        self._warnings.append(text)

    def warnings(self, since: int) -> list[str]:
        """Return the warnings after the first `since`."""
        return self._warnings[since:]

    def steps(self) -> dict[str, tuple[int, float]]:
        """Return steps made and last loss, by model."""
        return self._steps


class TrainingMonitor:
    """Polls the progress actor from a thread and shows what it holds, as a context.

    Args:
        steps: of all models together.
        quiet: show nothing.
    """

    def __init__(self, steps: int, *, quiet: bool) -> None:
        # Needs no CPU, and ends with the job.
        self.actor: Any = ray.remote(num_cpus=0, max_restarts=-1)(ProgressActor).remote()
        self._progress = Progress("train", steps, "steps", quiet=quiet)
        self._warned = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="training-monitor", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        if kind is None or issubclass(kind, Exception):
            self._thread.join()
            self._show()
            self._progress.close()
        ray.kill(self.actor)

    def _poll(self) -> None:
        while not self._stop.wait(_POLL_S):
            self._show()

    def _show(self) -> None:
        with suppress(RayError):  # shown at the next poll
            steps = ray.get(self.actor.steps.remote(), timeout=_TIMEOUT_S)
            note = ", ".join(f"{name} loss {loss:.3f}" for name, (_, loss) in steps.items())
            self._progress.update(sum(done for done, _ in steps.values()), note=note)
            for text in ray.get(self.actor.warnings.remote(self._warned), timeout=_TIMEOUT_S):
                self._warned += 1
                log.warning("%s", text)
