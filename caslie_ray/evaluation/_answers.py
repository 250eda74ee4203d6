"""The answers of a run's models beside the true ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from caslie_ray.storage.run import Run
from caslie_ray.tasks import TASKS, Task

if TYPE_CHECKING:  # it brings torch, which takes seconds
    from caslie_ray.prediction import Answerer

__all__ = ["FAILED", "Answered", "Answers", "Cell", "describe_left_out", "read_answers"]

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


class Answers(NamedTuple):
    """What the models of a profile have answered.

    Attributes:
        cells: the answers, by cell.
        missing: questions without an answer, by variant and split; their cells are measured without them.
        left_out: samples that are not measured because their true answer is none of their options, by the task's
            code and split.
        example: one of the samples left out, in words; empty where there is none.
    """

    cells: dict[Cell, Answered]
    missing: dict[str, dict[str, int]]
    left_out: dict[str, dict[str, int]]
    example: str


def read_answers(run: Run, answerers: Sequence[Answerer], splits: Collection[str]) -> Answers:
    """Read the predictions of a run beside the true answers.

    A row counts where the model that the run holds now gave it to the question that the run asks now. What an engine
    could not give counts as an answer that cannot be read. A sample whose true answer is none of its options is not
    measured, since no answer to it could be right.

    Args:
        run: holds `instructions` and `predictions`.
        answerers: who is measured.
        splits: of which every question should be answered; others are measured as far as they are.

    Raises:
        RunError: a table cannot be read.
    """
    tables = sorted({answerer.table for answerer in answerers})
    found: dict[Cell, dict[str, tuple[str, str]]] = {}
    missing: dict[str, dict[str, int]] = {}
    outside: Counter[tuple[str, str, str, str]] = Counter()
    example = ""
    for partition in sorted({run.partition(path) for table in tables for path in run.files(table)}):
        said = _said(run, partition)
        for table in tables:
            rows = run.read(table, _ASKED, partition=partition)
            for sample_id, name, split, variant, prompt, response, options in zip(*_columns(rows, _ASKED), strict=True):
                task = TASKS[name]
                truth = task.true_label(response, options or ())
                for answerer in answerers:
                    if answerer.table != table or answerer.reads != variant or not answerer.answers(name):
                        continue
                    key, answer = said.get((answerer.model, answerer.variant, sample_id), (None, None))
                    answered_now = key == answerer.key(prompt)
                    if truth is None and (answered_now or split in splits):
                        outside[task.code, split, answerer.model, answerer.variant] += 1
                        example = example or _described(sample_id, response, options or task.labels)
                    elif truth is not None and answered_now:
                        here = found.setdefault(Cell(answerer.model, answerer.variant, name, split), {})
                        here[sample_id] = truth, FAILED if answer is None else _label(task, answer)
                    elif truth is not None and split in splits:
                        lacking = missing.setdefault(answerer.variant, {})
                        lacking[split] = lacking.get(split, 0) + 1
    answered: dict[Cell, Answered] = {}
    for cell in sorted(found):
        pairs = sorted(found[cell].items())
        answered[cell] = Answered(
            [sample_id for sample_id, _ in pairs], [true for _, (true, _) in pairs], [said for _, (_, said) in pairs]
        )
    return Answers(answered, missing, _samples(outside), example)


def describe_left_out(left_out: Mapping[str, Mapping[str, int]]) -> str:
    """Return `Answers.left_out` in words, such as ``AP ind 2, AP ood 1``."""
    return ", ".join(f"{code} {split} {n:,}" for code, splits in left_out.items() for split, n in splits.items())


def _samples(outside: Counter[tuple[str, str, str, str]]) -> dict[str, dict[str, int]]:
    """Samples by the task's code and split: each is counted once, though every variant holds it."""
    found: dict[str, dict[str, int]] = {}
    for (code, split, _, _), count in sorted(outside.items()):
        splits = found.setdefault(code, {})
        splits[split] = max(count, splits.get(split, 0))
    return found


def _described(sample_id: str, output: str, options: Sequence[str]) -> str:
    shown = ", ".join(repr(option[:40]) for option in options[:6]) + (", …" if len(options) > 6 else "")
    return f"sample {sample_id}: {output[:80]!r} is none of {shown}, or stands for no label of its task"


_ASKED = ["sample_id", "task", "split", "variant", "prompt", "response", "options"]
_SAID = ["model", "variant", "sample_id", "key", "answer"]


def _label(task: Task, option: str) -> str:
    return task.label(option) if task.labels else option


def _said(run: Run, partition: str) -> dict[tuple[str, str, str], tuple[str, str | None]]:
    """Key and answer of each row, by model, variant and sample; the last one written where there are two."""
    rows = run.read("predictions", _SAID, partition=partition)
    return {
        (model, variant, sample_id): (key, answer)
        for model, variant, sample_id, key, answer in zip(*_columns(rows, _SAID), strict=True)
    }


def _columns(rows: pa.Table, names: Sequence[str]) -> list[list[Any]]:
    return [rows[name].to_pylist() for name in names]
