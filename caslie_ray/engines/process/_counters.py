"""Counts of what an engine process has done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from caslie_ray.engines import Choice, Generation

__all__ = ["Counters", "Meter"]


@dataclass(frozen=True, slots=True)
class Counters:
    """What an engine process has done, restarts included.

    Attributes:
        starts: times that the model was loaded.
        deaths: processes that ended without being closed, those that were still loading included.
        calls: calls answered.
        requests: requests answered, failures included.
        failures: requests answered with a failure, poison included.
        prompt_tokens: tokens read.
        new_tokens: tokens written.
        busy_s: seconds in which at least one call was computed.
        choosing_s: the part of them that went into choices, and not into text.
        load_s: seconds that the slowest load took.
    """

    starts: int = 0
    deaths: int = 0
    calls: int = 0
    requests: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    busy_s: float = 0.0
    choosing_s: float = 0.0
    load_s: float = 0.0


class Meter:
    """Keeps `Counters`. The caller locks."""

    def __init__(self) -> None:
        self._counters = Counters()
        self._running = 0
        self._choosing = 0
        self._since = 0.0

    def read(self) -> Counters:
        """Return the counts up to now."""
        self._tick()
        return self._counters

    def begin(self, method: str) -> None:
        """Count a call that the engine begins to compute."""
        self._tick()
        self._running += 1
        self._choosing += method == "choose"

    def end(self, method: str) -> None:
        """Count a call that the engine no longer computes."""
        self._tick()
        self._running -= 1
        self._choosing -= method == "choose"

    def add(self, *, starts: int = 0, deaths: int = 0, failures: int = 0, load_s: float = 0.0) -> None:
        """Count starts, deaths, and rows that got a failure without an answer."""
        now = self._counters
        self._counters = replace(
            now,
            starts=now.starts + starts,
            deaths=now.deaths + deaths,
            requests=now.requests + failures,
            failures=now.failures + failures,
            load_s=max(now.load_s, load_s),
        )

    def answered(self, answers: Sequence[Generation | Choice]) -> None:
        """Count an answered call."""
        now = self._counters
        self._counters = replace(
            now,
            calls=now.calls + 1,
            requests=now.requests + len(answers),
            failures=now.failures + sum(answer.failure is not None for answer in answers),
            prompt_tokens=now.prompt_tokens + sum(answer.prompt_tokens for answer in answers),
            new_tokens=now.new_tokens + sum(getattr(answer, "new_tokens", 0) for answer in answers),
        )

    def _tick(self) -> None:
        now = time.monotonic()
        if self._running:
            past = now - self._since
            self._counters = replace(
                self._counters,
                busy_s=self._counters.busy_s + past,
                choosing_s=self._counters.choosing_s + past * self._choosing / self._running,
            )
        self._since = now
