"""The metrics of answers, with 95% intervals by the bootstrap."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from caslie_ray.evaluation._answers import Answered, Cell
from caslie_ray.tasks import TASKS, Task

__all__ = ["Interval", "Scored", "difference", "mean_of", "metric_rows", "score"]

Draws = npt.NDArray[np.float64]


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
    draws: Mapping[str, Draws]
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
    draws = _draws(task, cell, answered, resamples)
    return Scored(cell, values, without, {name: draws[name] for name in values}, len(answered), answered.failed)


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


def _interval(value: float, draws: Draws) -> Interval:
    low, high = np.quantile(draws, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def _draws(task: Task, cell: Cell, answered: Answered, resamples: int) -> dict[str, Draws]:
    """The metrics over resampled samples, from counts of true and answered labels.

    scikit-learn's functions take one resample at a time and a thousand times as long; that both agree is tested.
    """
    truth, answers = answered.codes(task.labels)
    size = max(len(task.labels), 1) + 2
    seed = int.from_bytes(hashlib.sha256(f"{cell.task} {cell.split}".encode()).digest()[:8], "little")
    counts = np.zeros((resamples, size, size))
    rng = np.random.default_rng(seed)
    for at in range(resamples):
        taken = rng.integers(0, len(answered), len(answered))
        counts[at] = np.bincount(truth[taken] * size + answers[taken], minlength=size * size).reshape(size, size)
    total = counts.sum((1, 2))
    hits = np.diagonal(counts, axis1=1, axis2=2)
    accuracy = hits.sum(1) / total
    if not task.labels:
        return {"recall_at_1": hits[:, 0] / total}
    labels = len(task.labels)
    recall = _share(hits[:, :labels], counts.sum(2)[:, :labels])
    precision = _share(hits[:, :labels], counts.sum(1)[:, :labels])
    f1 = _share(2 * hits[:, :labels], (counts.sum(2) + counts.sum(1))[:, :labels])
    found = {"accuracy": accuracy}
    for name, values in (("recall", recall), ("precision", precision), ("f1", f1)):
        found[name] = values[:, 0]
        found[f"macro_{name}"] = values.mean(1)
    return found


def _share(part: Draws, whole: Draws) -> Draws:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
