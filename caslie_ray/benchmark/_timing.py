"""One measurement, the steady state of a stream of rows, and the spread of measurements over rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Spread", "Timing", "median", "ratios", "spread", "steady_seconds"]

Events = Sequence[tuple[float, int]]
"""When how many rows were there: (seconds, rows so far), both rising."""


@dataclass(frozen=True)
class Timing:
    """One measurement of one side.

    Attributes:
        units: what was done: views, votes, answers or tokens.
        rate: units per second in steady state: without loading and first calls. None where it cannot be told.
        seconds: wall-clock time of all of it, start-up included.
        first_row_s: seconds from the start of the process to its first row.
        start_s: seconds of `seconds` that are start-up: imports, Ray, loading, first calls.
        reason: why there is no rate.
        details: what else was measured, ready for JSON.
    """

    units: int
    rate: float | None
    seconds: float
    first_row_s: float | None = None
    start_s: float | None = None
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def whole_rate(self) -> float | None:
        """Units per second of all of it, start-up included."""
        return self.units / self.seconds if self.seconds > 0 else None


class Spread(NamedTuple):
    """The median of several values, the lowest and the highest."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def median(values: Sequence[float | None]) -> float | None:
    """Return the median of the values that are known; None without any."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def ratios(ours: Sequence[Timing | None], others: Sequence[Timing | None], scale: float = 1.0) -> list[float]:
    """Return ours / others for each round in which both sides have a rate.

    Args:
        ours: one timing per round.
        others: one timing per round.
        scale: how many times the hardware of `others` ours had.
    """
    found = []
    for one, other in zip(ours, others, strict=True):
        if one is not None and other is not None and one.rate and other.rate:
            found.append(one.rate / (other.rate * scale))
    return found


def steady_seconds(tables: Sequence[Events]) -> float | None:
    """Return how long all rows would take at the rate of the steady state.

    In each table the rate is taken from its first rows to its last: what came before the first rows is start-up.
    Tables that are written one after the other, as by models that work one after the other, add up.

    Returns:
        Seconds; None where every table has all its rows at once.
    """
    total = 0.0
    for events in tables:
        if len(events) < 2:
            continue
        (begun, first), (ended, last) = events[0], events[-1]
        if last > first and ended > begun:
            total += last * (ended - begun) / (last - first)
    return total or None
