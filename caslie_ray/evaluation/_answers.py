"""The answers of a run's models beside the true ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from caslie_ray.runs import Run
from caslie_ray.tasks import TASKS, Task

__all__ = ["FAILED", "Answered", "Cell", "read_answers"]

FAILED = ""
"""The label of an answer that cannot be read: it is none of a task's, and so counts as wrong."""


class Cell(NamedTuple):
    """Which answers: of one model, under one name, to one task, of one split."""

    model: str
    variant: str
    task: str
    split: str


@dataclass
class Answered:
    """The answers of one cell, in the order of their samples' ids.

    Attributes:
        samples: their ids.
        truth: the true label of each; for a task without labels, the true option.
        answers: the label that was answered; `FAILED` where none can be read.
    """

    samples: list[str] = field(default_factory=list)
    truth: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def failed(self) -> int:
        """Answers that cannot be read."""
        return self.answers.count(FAILED)

    @property
    def right(self) -> list[bool]:
        """Whether each is right."""
        return [true == answer for true, answer in zip(self.truth, self.answers, strict=True)]

    def without_failed(self) -> tuple[list[str], list[str]]:
        """Return truth and answers without those that cannot be read, as the paper measures."""
        kept = [pair for pair in zip(self.truth, self.answers, strict=True) if pair[1] != FAILED]
        return [true for true, _ in kept], [answer for _, answer in kept]

    def codes(self, labels: tuple[str, ...]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return truth and answers as places in `labels`; those that are none of them get the place after the last.

        Without labels, all that counts is whether an answer is right: 0 is right, 1 is wrong.
        """
        if not labels:
            wrong = np.array([not right for right in self.right], dtype=np.int64)
            return np.zeros_like(wrong), wrong
        place = {label: at for at, label in enumerate(labels)}
        truth, answers = (
            np.array([place.get(value, len(labels)) for value in values], dtype=np.int64)
            for values in (self.truth, self.answers)
        )
        return truth, answers


_Facts = Mapping[str, tuple[str, str, str]]


def read_answers(run: Run) -> dict[Cell, Answered]:
    """Read the predictions of a run beside the true answers; rows of samples that are gone are left out.

    Raises:
        RunError: a table cannot be read.
    """
    facts = _facts(run)
    found: dict[Cell, dict[str, tuple[str, str]]] = {}
    for model, variant, sample_id, answer in _predictions(run):
        if sample_id not in facts:
            continue
        name, split, output = facts[sample_id]
        task = TASKS[name]
        here = found.setdefault(Cell(model, variant, name, split), {})
        here[sample_id] = _label(task, output), FAILED if answer is None else _label(task, answer)
    answered: dict[Cell, Answered] = {}
    for cell in sorted(found):
        rows = sorted(found[cell].items())
        answered[cell] = Answered(
            [sample_id for sample_id, _ in rows], [true for _, (true, _) in rows], [said for _, (_, said) in rows]
        )
    return answered


def _label(task: Task, option: str) -> str:
    return task.label(option) if task.labels else option


def _facts(run: Run) -> _Facts:
    """Task, split and true answer of each sample."""
    rows = run.read("samples", ["sample_id", "task", "split", "output"])
    columns = (rows[name].to_pylist() for name in rows.column_names)
    return {sample_id: (task, split, output) for sample_id, task, split, output in zip(*columns, strict=True)}


def _predictions(run: Run) -> Iterator[tuple[str, str, str, str | None]]:
    rows = run.read("predictions", ["model", "variant", "sample_id", "answer", "error", "retryable"])
    # What an engine may still answer is not wrong yet; `missing` in the predict job's summary counts it.
    rows = rows.filter(pc.invert(pc.fill_null(rows["retryable"], False)))
    columns = (rows[name].to_pylist() for name in ("model", "variant", "sample_id", "answer"))
    yield from zip(*columns, strict=True)
