"""Outcomes of answers, as compact arrays: all that metrics and their bootstrap need of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from caslie_ray.tasks import TASKS, Confusion, Task, Values, label_indices

__all__ = ["FAILED", "Cell", "Outcomes"]

FAILED = ""
"""The label of an answer that could not be parsed: no task has this label, so it counts as wrong."""


class Cell(NamedTuple):
    """The answers of one model, in one variant, to one task, in one split."""

    model: str
    variant: str
    task: str
    split: str


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of one cell's answers, in the order of the sample ids.

    An outcome is the answer's place in the confusion matrix, and whether it failed. An answer takes 1 byte for tasks
    with up to 10 labels, 2 bytes up to 180, else 4.

    Attributes:
        task: full name of the task.
        codes: per answer, twice its index in the flattened confusion matrix, plus 1 if it failed.
    """

    task: str
    codes: npt.NDArray[np.unsignedinteger[Any]]

    @classmethod
    def of(cls, task: Task, truth: Sequence[str], answers: Sequence[str]) -> Outcomes:
        """Encode answers.

        Args:
            task: their task.
            truth: the true label per answer; for a task without labels, the true option.
            answers: the answered label or option; `FAILED` if none could be parsed.
        """
        size = _size(task)
        rows, columns = label_indices(truth, answers, task.labels)
        failed = np.array([answer == FAILED for answer in answers], dtype=np.int64)
        return cls(task.name, (2 * (rows * size + columns) + failed).astype(np.min_scalar_type(2 * size**2 - 1)))

    @classmethod
    def joined(cls, parts: Sequence[Outcomes]) -> Outcomes:
        """Concatenate the outcomes of consecutive partitions; there is at least one."""
        return cls(parts[0].task, np.concatenate([part.codes for part in parts]))

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def failed(self) -> int:
        """Number of answers that could not be parsed."""
        return int((self.codes & 1).sum())

    @property
    def size(self) -> int:
        """Rows and columns of the confusion matrix: one per label, and one for everything else."""
        return _size(TASKS[self.task])

    @property
    def places(self) -> npt.NDArray[np.intp]:
        """Index of each answer in the flattened confusion matrix, of shape ``(n,)``."""
        return (self.codes >> 1).astype(np.intp)

    def confusion(self, *, without_failed: bool = False) -> Confusion:
        """Return the confusion matrix, of shape ``(size, size)``; see `caslie_ray.tasks.Confusion`."""
        codes = self.codes[(self.codes & 1) == 0] if without_failed else self.codes
        counts: Values = np.bincount((codes >> 1).astype(np.intp), minlength=self.size**2).astype(np.float64)
        return Confusion(counts.reshape(self.size, self.size))


def _size(task: Task) -> int:
    return max(len(task.labels), 1) + 1
