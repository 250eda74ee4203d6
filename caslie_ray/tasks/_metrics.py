"""The metrics of the paper (section 6 and E.4), computed by scikit-learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Metrics", "binary", "macro", "recall_at_1"]

Score = Callable[[Sequence[str], Sequence[str], Sequence[str]], dict[str, float]]


@dataclass(frozen=True)
class Metrics:
    """How a task is measured.

    Attributes:
        primary: the metric that Table 4 shows.
        score: ``score(truth, answers, labels)`` of at least one sample; labels come from the task, never
            from what occurs. An answer outside the labels (a failure) counts as wrong.
    """

    primary: str
    score: Score


def _binary(truth: Sequence[str], answers: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support  # slow to import; workers never score

    positive = labels[0]
    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, answers, labels=[positive], average=None, zero_division=0.0
    )
    return {
        "accuracy": float(accuracy_score(truth, answers)),
        "recall": float(recall[0]),
        "precision": float(precision[0]),
        "f1": float(f1[0]),
    }


def _macro(truth: Sequence[str], answers: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support  # as above

    precision, recall, f1, _ = precision_recall_fscore_support(
        truth, answers, labels=list(labels), average="macro", zero_division=0.0
    )
    return {
        "accuracy": float(accuracy_score(truth, answers)),
        "macro_recall": float(recall),
        "macro_precision": float(precision),
        "macro_f1": float(f1),
    }


def _recall_at_1(truth: Sequence[str], answers: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    from sklearn.metrics import accuracy_score  # as above

    return {"recall_at_1": float(accuracy_score(truth, answers))}


def binary(primary: str = "f1") -> Metrics:
    """Accuracy, and recall, precision and F1 of the first label (yes), as in Tables A7 and A10."""
    return Metrics(primary, _binary)


def macro(primary: str = "macro_f1") -> Metrics:
    """Accuracy, and recall, precision and F1 averaged over the task's labels (Tables A9, A11, A12)."""
    return Metrics(primary, _macro)


def recall_at_1() -> Metrics:
    """Share of samples whose one answer is the true option (HR@1 of Tables A8 and A13)."""
    return Metrics("recall_at_1", _recall_at_1)
