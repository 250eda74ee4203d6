"""Timings, steady-state rates, and their spread over rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["Spread", "Timing", "median", "ratios", "spread", "steady_seconds"]

Events = Sequence[tuple[float, int]]
"""(seconds, rows so far), both increasing."""


@dataclass(frozen=True)
class Timing:
    """One measurement of one system.

    Attributes:
        units: number of views, votes, answers or tokens.
        rate: units per second in steady state, without loading and first calls; None if unknown.
        seconds: total wall-clock time, including start-up.
        first_row_s: seconds from the start of the process to its first row.
        start_s: start-up part of `seconds`: imports, Ray, loading, first calls.
        reason: why there is no rate.
        details: other measurements, as JSON values.
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
        """Units per second of total time, including start-up."""
        return self.units / self.seconds if self.seconds > 0 else None


class Spread(NamedTuple):
    """Median, minimum and maximum of several values."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def median(values: Sequence[float | None]) -> float | None:
    """Return the median of the known values; None without any."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def ratios(ours: Sequence[Timing | None], others: Sequence[Timing | None], scale: float = 1.0) -> list[float]:
    """Return ours / others for each round in which both have a rate.

    Args:
        ours: one timing per round.
        others: one timing per round.
        scale: ratio of our hardware to that of `others`.
    """
    found = []
    for one, other in zip(ours, others, strict=True):
        if one is not None and other is not None and one.rate and other.rate:
            found.append(one.rate / (other.rate * scale))
    return found


def steady_seconds(tables: Sequence[Events]) -> float | None:
    """Return how long all rows would take at the steady-state rate.

    A table's rate is measured from its first rows to its last; the time before is start-up. Tables written one after
    the other, by models that run one after the other, add up. Of tables written at the same time, by models that run
    together, the one that ends last counts.

    Returns:
        Seconds; None if every table got all its rows at once.
    """
    total = overlapping = latest = 0.0
    for events in sorted((events for events in tables if len(events) > 1), key=lambda events: events[0][0]):
        (start, first_rows), (end, all_rows) = events[0], events[-1]
        if all_rows <= first_rows or end <= start:
            continue
        if start >= latest:
            total, overlapping = total + overlapping, 0.0
        if end >= latest:
            overlapping, latest = all_rows * (end - start) / (all_rows - first_rows), end
    return total + overlapping or None
