"""The metrics of answers, with 95% intervals by the bootstrap."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from caslie_ray.evaluation._answers import Answered, Cell
from caslie_ray.tasks import TASKS, Confusion, Task, Values, label_indices

__all__ = ["Interval", "Scored", "difference", "mean_of", "metric_rows", "score"]

_CHUNK_CELLS = 4_000_000  # of confusion matrices at once, which bounds the memory of tasks with many labels


class Interval(NamedTuple):
    """A value and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scored:
    """One cell, measured.

    Attributes:
        cell: which answers.
        values: each metric of the task; an answer that cannot be read counts as wrong.
        without_failed: the same over the answers that can be read, as the paper measures; empty where there are none.
        draws: each metric over resampled samples. Cells of one task and split are resampled alike, so that draws of
            two models may be subtracted.
        n: answers.
        failed: those of them that cannot be read.
    """

    cell: Cell
    values: Mapping[str, float]
    without_failed: Mapping[str, float]
    draws: Mapping[str, Values]
    n: int
    failed: int

    @property
    def task(self) -> Task:
        """Its task."""
        return TASKS[self.cell.task]

    def interval(self, metric: str) -> Interval:
        """Return a metric with its interval."""
        return _interval(self.values[metric], self.draws[metric])

    @property
    def primary(self) -> Interval:
        """The task's primary metric with its interval."""
        return self.interval(self.task.metrics.primary)


def score(cell: Cell, answered: Answered, resamples: int) -> Scored:
    """Measure the answers of one cell, of which there is at least one."""
    task = TASKS[cell.task]
    metrics = task.metrics
    values = metrics.score(answered.truth, answered.answers, task.labels)
    truth, answers = answered.without_failed()
    without = metrics.score(truth, answers, task.labels) if truth else {}
    draws = _draws(cell, answered, task, resamples)
    return Scored(cell, values, without, draws, len(answered), answered.failed)


def mean_of(scored: Sequence[Scored]) -> Interval:
    """Return the mean of the primary metrics of some cells, one a task."""
    value = float(np.mean([one.primary.value for one in scored]))
    return _interval(value, np.mean([one.draws[one.task.metrics.primary] for one in scored], axis=0))


def difference(one: Sequence[Scored], other: Sequence[Scored]) -> Interval:
    """Return by how much the mean primary metric of some cells exceeds that of others, of the same tasks in order."""
    mine, its = (np.mean([cell.draws[cell.task.metrics.primary] for cell in cells], axis=0) for cells in (one, other))
    return _interval(mean_of(one).value - mean_of(other).value, mine - its)


def metric_rows(scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """Return what `report/metrics.json` holds of some cells."""
    rows = []
    for one in scored:
        for name in one.values:
            found = one.interval(name)
            rows.append(
                {
                    **one.cell._asdict(),
                    "metric": name,
                    "primary": name == one.task.metrics.primary,
                    "value": found.value,
                    "low": found.low,
                    "high": found.high,
                    "n": one.n,
                    "failed": one.failed,
                    "without_failed": one.without_failed.get(name),
                }
            )
    return rows


def _interval(value: float, draws: Values) -> Interval:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def _draws(cell: Cell, answered: Answered, task: Task, resamples: int) -> dict[str, Values]:
    """The metrics of bootstrap resamples; cells of one task and split draw the same samples."""
    size = max(len(task.labels), 1) + 1
    rows, columns = label_indices(answered.truth, answered.answers, task.labels)
    places = rows * size + columns
    seed = int.from_bytes(hashlib.sha256(f"{cell.task} {cell.split}".encode()).digest()[:8], "little")
    rng = np.random.default_rng(seed)
    parts: list[dict[str, Values]] = []
    chunk = max(1, _CHUNK_CELLS // size**2)
    for start in range(0, resamples, chunk):
        counts = np.zeros((min(chunk, resamples - start), size * size))
        for one in counts:
            one[:] = np.bincount(places[rng.integers(0, len(places), len(places))], minlength=size * size)
        parts.append(task.metrics.values(Confusion(counts.reshape(-1, size, size))))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
