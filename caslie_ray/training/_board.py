"""How far trainings are: workers say it, the job shows it."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from typing import Any, Self

import ray
from ray.exceptions import RayError

from caslie_ray.monitoring.progress import Progress

__all__ = ["Board", "Onlooker"]

log = logging.getLogger(__name__)

_EVERY_S = 1.0
_PATIENCE_S = 10.0


class Board:
    """An actor that remembers the last step of each model, and why none can follow."""

    def __init__(self) -> None:
        self._steps: dict[str, tuple[int, float]] = {}
        self._final: Exception | None = None
        self._warnings: list[str] = []

    def tell(self, name: str, done: int, loss: float) -> None:
        """Say that a model has made so many steps, and the loss of the last."""
        self._steps[name] = done, loss

    def fail(self, error: Exception) -> None:
        """Say why training cannot go on, however often it is tried."""
        self._final = self._final or error

    def final_error(self) -> Exception | None:
        """Return why training cannot go on; None while it can."""
        return self._final

    def warn(self, text: str) -> None:
        """Keep a warning for the job's log; the workers' own logs stay on their nodes."""
        self._warnings.append(text)

    def warnings(self, since: int) -> list[str]:
        """Return the warnings after the first `since`."""
        return self._warnings[since:]

    def look(self) -> dict[str, tuple[int, float]]:
        """Return steps made and last loss, by model."""
        return self._steps


class Onlooker:
    """Shows the progress of trainings in a thread of its own, as a context.

    Args:
        steps: of all models together.
        quiet: show nothing.
    """

    def __init__(self, steps: int, *, quiet: bool) -> None:
        # It needs no room of its own, and ends with the job.
        self.board: Any = ray.remote(num_cpus=0, max_restarts=-1)(Board).remote()
        self._progress = Progress("train", steps, "steps", quiet=quiet)
        self._warned = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="onlooker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        if kind is None or issubclass(kind, Exception):
            self._thread.join()
            self._look()
            self._progress.close()
        ray.kill(self.board)

    def _look_on(self) -> None:
        while not self._over.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        with suppress(RayError):  # no news
            seen = ray.get(self.board.look.remote(), timeout=_PATIENCE_S)
            note = ", ".join(f"{name} loss {loss:.3f}" for name, (_, loss) in seen.items())
            self._progress.update(sum(done for done, _ in seen.values()), note=note)
            for text in ray.get(self.board.warnings.remote(self._warned), timeout=_PATIENCE_S):
                self._warned += 1
                log.warning("%s", text)
