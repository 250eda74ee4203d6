"""A call that an engine process is to answer, as its owner sees it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import NamedTuple

from caslie_ray.engines import Choice, Generation
from caslie_ray.engines.process._deaths import Death
from caslie_ray.engines.process._messages import Method

__all__ = ["Call", "Cancel", "News"]


class News(NamedTuple):
    """What has become of a call; exactly one field is set.

    Attributes:
        began: the engine computes it now.
        piece: the next piece of a streamed answer.
        answers: its answers; it has ended.
        death: the process ended before it answered.
        cancelled: the caller no longer waits for it.
    """

    began: bool = False
    piece: str | None = None
    answers: list[Generation] | list[Choice] | None = None
    death: Death | None = None
    cancelled: bool = False


class Call:
    """One call in an engine process. `EngineProcess`'s lock guards it; `wait` alone needs no lock.

    Attributes:
        number: identifies it within its process.
        rows: its requests.
        shared: whether another call was in the process at the same time.
        began: when the engine began to compute it, in seconds of the monotonic clock; None before that.
        abandoned: whether its caller has left.
    """

    def __init__(self, number: int, method: Method, rows: int, timeout_s: float, overlap: int) -> None:
        self.number = number
        self.method = method
        self.rows = rows
        self.shared = False
        self.began: float | None = None
        self.abandoned = False
        self.news: SimpleQueue[News] = SimpleQueue()
        self._sent = time.monotonic()
        self._timeout_s = timeout_s
        self._overlap = overlap

    @property
    def deadline(self) -> float:
        """When it has taken too long, in seconds of the monotonic clock.

        A call that shares the engine gets the time of all; a queued one also that of the calls before it.
        """
        if not self.shared:
            return (self.began or self._sent) + self._timeout_s
        if self.began is not None:
            return self.began + self._timeout_s * self._overlap
        return self._sent + self._timeout_s * (self._overlap + 1)

    def cancel(self) -> None:
        """Wake the caller, which raises `Cancelled`."""
        self.news.put(News(cancelled=True))

    def wait(self) -> News:
        """Return the next news of it.

        Raises:
            TimeoutError: its deadline has passed.
        """
        while True:
            left = self.deadline - time.monotonic()
            try:
                return self.news.get(timeout=max(0.0, left))
            except Empty:
                if self.deadline <= time.monotonic():  # beginning moves the deadline
                    raise TimeoutError from None


class Cancel:
    """Lets one thread cancel the calls that another waits for. Thread-safe; may be set before the call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._set = False

    def set(self) -> None:
        """Cancel: the waiting calls raise `Cancelled`."""
        with self._lock:
            self._set = True
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def is_set(self) -> bool:
        """Return whether it was cancelled."""
        return self._set

    @contextmanager
    def calling(self, listener: Callable[[], None]) -> Iterator[None]:
        """Call `listener` when it is cancelled; at once where it is already."""
        with self._lock:
            self._listeners.append(listener)
            already = self._set
        try:
            if already:
                listener()
            yield
        finally:
            with self._lock:
                self._listeners.remove(listener)
