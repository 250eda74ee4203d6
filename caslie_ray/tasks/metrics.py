"""Metrics of answers (paper section 6 and E.4).

To add a metric, decorate a function of a confusion matrix with `metric` and list it in a task's `Metrics`. The same
function also computes the bootstrap interval, from resampled matrices. Its name is the key in `metrics.json`, its title
the header of its column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType

import numpy as np
import numpy.typing as npt

__all__ = [
    "Confusion", "Metric", "Metrics", "Values", "accuracy", "binary", "label_indices", "macro", "metric", "recall_at_1",
    "share",
]  # fmt: skip

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Confusion:
    """Confusion matrices: one, or a stack of resampled ones.

    Attributes:
        counts: answers by true label (second to last axis) and answered label (last axis), of shape
            ``(..., labels + 1, labels + 1)``. Labels are in the task's order. The last row and column are for anything
            else, such as an unreadable answer. A task whose samples have their own options has one label: the true
            option.
    """

    counts: Values

    @classmethod
    def of(cls, truth: Sequence[str], answers: Sequence[str], labels: Sequence[str]) -> Confusion:
        """Count answers; `labels` are the task's, empty if each sample has its own options."""
        from sklearn.metrics import confusion_matrix  # slow to import; workers never score

        indices = label_indices(truth, answers, labels)
        return cls(confusion_matrix(*indices, labels=range(max(len(labels), 1) + 1)).astype(np.float64))

    @property
    def total(self) -> Values:
        """Number of answers, of shape ``(...)``."""
        return np.asarray(self.counts.sum((-2, -1)))

    @property
    def hits(self) -> Values:
        """Correct answers by label, of shape ``(..., labels)``."""
        return np.diagonal(self.counts, axis1=-2, axis2=-1)[..., :-1]

    @property
    def true(self) -> Values:
        """Samples by their true label, of shape ``(..., labels)``."""
        return np.asarray(self.counts.sum(-1))[..., :-1]

    @property
    def answered(self) -> Values:
        """Answers by answered label, of shape ``(..., labels)``."""
        return np.asarray(self.counts.sum(-2))[..., :-1]


def label_indices(
    truth: Sequence[str], answers: Sequence[str], labels: Sequence[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return truth and answers as indices of the confusion matrix; anything else than a label gets the last one."""
    if not labels:
        wrong = np.array([true != answer for true, answer in zip(truth, answers, strict=True)], dtype=np.int64)
        return np.zeros_like(wrong), wrong
    index = {label: at for at, label in enumerate(labels)}
    rows, columns = (
        np.array([index.get(value, len(labels)) for value in values], dtype=np.int64) for values in (truth, answers)
    )
    return rows, columns


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: its key in `metrics.json`.
        title: the header of its column in tables.
        function: returns one value per matrix: shape ``(...)`` for counts of shape ``(..., n, n)``.
    """

    name: str
    title: str
    function: Callable[[Confusion], Values]

    def __call__(self, confusion: Confusion) -> Values:
        """Return the metric of each matrix; 0 where it is undefined (0/0), as in scikit-learn.

        Raises:
            ValueError: the function does not return one value per matrix.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.asarray(self.function(confusion), dtype=np.float64)
        shape = confusion.counts.shape[:-2]
        if values.shape != shape:
            raise ValueError(
                f"metric {self.name!r} returned shape {values.shape} for counts of shape {confusion.counts.shape},"
                f" where {shape} is wanted: reduce the last axes only, for example hits.sum(-1) instead of hits.sum()"
            )
        return np.where(np.isfinite(values), values, 0.0)


def metric(title: str) -> Callable[[Callable[[Confusion], Values]], Metric]:
    """Make a metric from a function; its name is the function's, `title` is the header of its column."""

    def decorate(function: Callable[[Confusion], Values]) -> Metric:
        made = Metric(getattr(function, "__name__", title), title, function)
        if isinstance(function, FunctionType):
            # The metric replaces the function in its module: pickle finds the function through it.
            function.__qualname__ += ".function"
        return made

    return decorate


@dataclass(frozen=True)
class Metrics:
    """The metrics of a task.

    Attributes:
        primary: the name of the metric that represents the task in summary tables and means.
        metrics: all of its metrics, in column order.

    Raises:
        ValueError: two metrics have the same name, or `primary` is none of them.
    """

    primary: str
    metrics: tuple[Metric, ...]

    def __post_init__(self) -> None:
        names = [one.name for one in self.metrics]
        if len({*names, "failed"}) != len(names) + 1:
            raise ValueError(f"metrics {', '.join(names)} need names of their own, other than 'failed'")
        if self.primary not in names:
            raise ValueError(f"the primary metric {self.primary!r} is none of {', '.join(names)}")

    @property
    def titles(self) -> dict[str, str]:
        """Column headers by metric name."""
        return {one.name: one.title for one in self.metrics}

    def values(self, confusion: Confusion) -> dict[str, Values]:
        """Return each metric of each matrix, by name.

        Raises:
            ValueError: a metric does not return one value per matrix.
        """
        return {one.name: one(confusion) for one in self.metrics}

    def score(self, truth: Sequence[str], answers: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
        """Return each metric of at least one sample, by name.

        An answer outside the labels (a failure) counts as wrong. Labels are the task's, not those that occur.
        """
        values = self.values(Confusion.of(truth, answers, labels))
        return {name: float(value) for name, value in values.items()}


def share(part: Values, total: Values) -> Values:
    """Return ``part / total`` elementwise, 0 where the total is 0."""
    part, total = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(total, np.float64))
    return np.divide(part, total, out=np.zeros_like(part), where=total > 0)


def _recalls(of: Confusion) -> Values:
    return share(of.hits, of.true)


def _precisions(of: Confusion) -> Values:
    return share(of.hits, of.answered)


def _f1s(of: Confusion) -> Values:
    return share(2 * of.hits, of.true + of.answered)


@metric("Acc")
def accuracy(of: Confusion) -> Values:
    """Fraction of correct answers."""
    return share(of.hits.sum(-1), of.total)


@metric("Rec")
def recall(of: Confusion) -> Values:
    """Recall of the first label (yes)."""
    return _recalls(of)[..., 0]


@metric("Pre")
def precision(of: Confusion) -> Values:
    """Precision of the first label (yes)."""
    return _precisions(of)[..., 0]


@metric("F1")
def f1(of: Confusion) -> Values:
    """F1 of the first label (yes)."""
    return _f1s(of)[..., 0]


@metric("M-Rec")
def macro_recall(of: Confusion) -> Values:
    """Recall averaged over the labels."""
    return np.asarray(_recalls(of).mean(-1))


@metric("M-Pre")
def macro_precision(of: Confusion) -> Values:
    """Precision averaged over the labels."""
    return np.asarray(_precisions(of).mean(-1))


@metric("M-F1")
def macro_f1(of: Confusion) -> Values:
    """F1 averaged over the labels."""
    return np.asarray(_f1s(of).mean(-1))


def binary(primary: str = "f1") -> Metrics:
    """Accuracy, and recall, precision and F1 of the first label (yes), as in Tables A7 and A10."""
    return Metrics(primary, (accuracy, recall, precision, f1))


def macro(primary: str = "macro_f1") -> Metrics:
    """Accuracy, and recall, precision and F1 averaged over the task's labels (Tables A9, A11, A12)."""
    return Metrics(primary, (accuracy, macro_recall, macro_precision, macro_f1))


def recall_at_1() -> Metrics:
    """Fraction of samples whose answer is the true option (HR@1 of Tables A8 and A13)."""
    return Metrics("recall_at_1", (Metric("recall_at_1", "R@1", accuracy.function),))
