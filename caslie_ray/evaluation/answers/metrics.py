"""Metrics of answers, with 95% bootstrap intervals.

A metric is a function of a confusion matrix (`caslie_ray.tasks.metric`). The same function computes its value and,
from resampled matrices, its interval; nothing here knows a metric by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from caslie_ray.evaluation.answers.outcomes import Cell, Outcomes
from caslie_ray.intervals import Interval
from caslie_ray.tasks import TASKS, Confusion, Task, Values

__all__ = ["Scored", "difference", "mean_of", "metric_rows", "score"]

_CHUNK_CELLS = 4_000_000  # cells of confusion matrices at a time, which bounds memory for tasks with many labels


@dataclass(frozen=True)
class Scored:
    """The metrics of one cell.

    Attributes:
        cell: whose answers.
        values: each metric of the task; failed answers count as wrong.
        without_failed: the same without failed answers, as in the paper; empty if all failed.
        draws: each metric over bootstrap resamples, of shape ``(resamples,)``. Cells of one task and split share the
            resampled indices, so the draws of two variants may be subtracted (paired bootstrap).
        n: number of answers.
        failed: number of answers that could not be parsed.
    """

    cell: Cell
    values: Mapping[str, float]
    without_failed: Mapping[str, float]
    draws: Mapping[str, Values]
    n: int
    failed: int

    @property
    def task(self) -> Task:
        """The task of the cell."""
        return TASKS[self.cell.task]

    def interval(self, metric: str) -> Interval:
        """Return a metric with its interval."""
        return _interval(self.values[metric], self.draws[metric])

    @property
    def primary(self) -> Interval:
        """The task's primary metric with its interval."""
        return self.interval(self.task.metrics.primary)


def score(cell: Cell, outcomes: Outcomes, resamples: int) -> Scored:
    """Compute the metrics of a cell with at least one answer.

    Args:
        cell: whose answers.
        outcomes: their outcomes.
        resamples: bootstrap resamples; the time grows with `resamples` times the number of answers.
    """
    metrics = TASKS[cell.task].metrics
    values = _floats(metrics.values(outcomes.confusion()))
    failed = outcomes.failed
    without = _floats(metrics.values(outcomes.confusion(without_failed=True))) if failed < len(outcomes) else {}
    return Scored(cell, values, without, _draws(cell, outcomes, resamples), len(outcomes), failed)


def mean_of(scored: Sequence[Scored]) -> Interval:
    """Return the mean primary metric of some cells, one per task."""
    value = float(np.mean([one.primary.value for one in scored]))
    return _interval(value, np.mean([one.draws[one.task.metrics.primary] for one in scored], axis=0))


def difference(one: Sequence[Scored], other: Sequence[Scored]) -> Interval:
    """Return how much the mean primary metric of `one` exceeds that of `other`: cells of the same tasks in order."""
    mine, its = (np.mean([cell.draws[cell.task.metrics.primary] for cell in cells], axis=0) for cells in (one, other))
    return _interval(mean_of(one).value - mean_of(other).value, mine - its)


def metric_rows(scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """Return the rows of ``report/metrics.json``."""
    return [
        {
            **one.cell._asdict(),
            "metric": name,
            "primary": name == one.task.metrics.primary,
            **one.interval(name)._asdict(),
            "n": one.n,
            "failed": one.failed,
            "without_failed": one.without_failed.get(name),
        }
        for one in scored
        for name in one.values
    ]


def _interval(value: float, draws: Values) -> Interval:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def _floats(values: Mapping[str, Values]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _draws(cell: Cell, outcomes: Outcomes, resamples: int) -> dict[str, Values]:
    """The metrics of bootstrap resamples; the seed depends on task and split only."""
    size, places = outcomes.size, outcomes.places
    seed = int.from_bytes(hashlib.sha256(f"{cell.task} {cell.split}".encode()).digest()[:8], "little")
    rng = np.random.default_rng(seed)
    parts: list[dict[str, Values]] = []
    chunk = max(1, _CHUNK_CELLS // size**2)
    for start in range(0, resamples, chunk):
        counts = np.zeros((min(chunk, resamples - start), size * size))
        for one in counts:
            one[:] = np.bincount(places[rng.integers(0, len(places), len(places))], minlength=size * size)
        parts.append(TASKS[cell.task].metrics.values(Confusion(counts.reshape(-1, size, size))))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
