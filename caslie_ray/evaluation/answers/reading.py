"""Reads the answers of a run's models together with the true ones, per partition of samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from caslie_ray.evaluation._partitions import Partition, is_large, map_chunks, partitions_of
from caslie_ray.evaluation.answers.contrasts import Contrast, contrast_of, evenly
from caslie_ray.evaluation.answers.outcomes import FAILED, Cell, Outcomes
from caslie_ray.fusion import EXPERIMENTS
from caslie_ray.storage.run import Run
from caslie_ray.tasks import TASKS, Task

if TYPE_CHECKING:  # imports torch, which takes seconds
    from caslie_ray.prediction import Answerer

__all__ = ["MAX_CONTRASTS", "TEST_SPLITS", "Answers", "Used", "describe_left_out", "read_answers"]

TEST_SPLITS = ("ind", "ood")

MAX_CONTRASTS = 400
"""Samples on the report page on which variants differ."""

_ROWS = 1024  # per batch: the prompts of only so many rows are Python objects at a time

Used = Mapping[tuple[str, str, str], int]
"""Captions used by variant, task and split."""


class Answers(NamedTuple):
    """What the models of a profile have answered.

    Attributes:
        cells: outcomes by cell.
        missing: number of questions without an answer, by variant and split; cells are measured without them.
        left_out: number of samples that are not measured because their true answer is not one of their options, by
            the task's code and split.
        example: one of the samples left out, described; empty if there is none.
        captions_used: number of captions in the prompts.
        contrasts: samples on which variants of the first model differ.
    """

    cells: dict[Cell, Outcomes]
    missing: dict[str, dict[str, int]]
    left_out: dict[str, dict[str, int]]
    example: str
    captions_used: Used
    contrasts: list[Contrast]


@dataclass
class _Counts:
    """What a task returns: outcomes per cell as compact arrays, counts, and a bounded number of sample ids."""

    cells: dict[Cell, Outcomes] = field(default_factory=dict)
    missing: Counter[tuple[str, str]] = field(default_factory=Counter)
    outside: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    example: str = ""
    captions_used: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    contrasts: list[Contrast] = field(default_factory=list)


def read_answers(run: Run, answerers: Sequence[Answerer], splits: Collection[str]) -> Answers:
    """Read the predictions of a run and compare them with the true answers; a large run is read in Ray tasks.

    A prediction counts if it is the current model's answer to the current prompt. An engine error counts as an answer
    that could not be parsed. A sample whose true answer is none of its options is left out: no answer could be right.

    Args:
        run: the run with `instructions` and `predictions`.
        answerers: the models.
        splits: splits of which every question should be answered; of others, those answered are measured.

    Raises:
        RunError: a table cannot be read.
    """
    partitions = partitions_of(run, ["instructions", EXPERIMENTS], ["predictions"])
    chosen, all_splits = tuple(answerers), frozenset(splits)

    def read(chunk: Sequence[Partition]) -> _Counts:
        return _merged([_read_partition(run, partition, chosen, all_splits) for partition in chunk])

    parts = map_chunks(read, partitions, in_tasks=is_large(run, partitions, "predictions"))
    # Partitions are named after the first digits of sample ids, so this is the order of the ids.
    found = _merged([part.result for part in sorted(parts, key=lambda part: part.first)])
    missing: dict[str, dict[str, int]] = {}
    for (variant, split), count in sorted(found.missing.items()):
        missing.setdefault(variant, {})[split] = count
    cells = {cell: found.cells[cell] for cell in sorted(found.cells)}
    return Answers(cells, missing, _samples(found.outside), found.example, dict(found.captions_used), found.contrasts)


def describe_left_out(left_out: Mapping[str, Mapping[str, int]]) -> str:
    """Return `Answers.left_out` as text, such as ``AP ind 2, AP ood 1``."""
    return ", ".join(f"{code} {split} {n:,}" for code, splits in left_out.items() for split, n in splits.items())


def _merged(parts: Sequence[_Counts]) -> _Counts:
    """Merge the counts of consecutive partitions."""
    cells: dict[Cell, list[Outcomes]] = {}
    merged = _Counts(example=next((part.example for part in parts if part.example), ""))
    for part in parts:
        for cell, outcomes in part.cells.items():
            cells.setdefault(cell, []).append(outcomes)
        merged.missing.update(part.missing)
        merged.outside.update(part.outside)
        merged.captions_used.update(part.captions_used)
    merged.cells = {cell: Outcomes.joined(found) for cell, found in cells.items()}
    merged.contrasts = evenly((one for part in parts for one in part.contrasts), MAX_CONTRASTS)
    return merged


_QUESTION = ["sample_id", "task", "split", "variant", "prompt", "response", "options", "captions_used"]
_PREDICTION = ["model", "variant", "sample_id", "key", "answer"]


def _read_partition(run: Run, partition: Partition, answerers: Sequence[Answerer], splits: Collection[str]) -> _Counts:
    here, found = partition.of(run), _Counts()
    predicted = _predictions(here, partition.name)
    answers: dict[Cell, dict[str, tuple[str, str]]] = {}
    for table in ("instructions", EXPERIMENTS):
        asked = [answerer for answerer in answerers if answerer.table == table]
        for batch in here.read(table, _QUESTION, partition.name).to_batches(_ROWS):
            for sample_id, name, split, variant, prompt, response, options, used in _rows(batch):
                found.captions_used[variant, name, split] += used or 0
                task = TASKS[name]
                truth = task.true_label(response, options or ())
                for answerer in asked:
                    if answerer.reads != variant or not answerer.answers(name):
                        continue
                    key, answer = predicted.get((answerer.model, answerer.variant, sample_id), (None, None))
                    is_current = key is not None and key == answerer.key(prompt)
                    if truth is None and (is_current or split in splits):
                        found.outside[task.code, split, answerer.model, answerer.variant] += 1
                        found.example = found.example or _described(sample_id, response, options or task.labels)
                    elif truth is not None and is_current:
                        cell = Cell(answerer.model, answerer.variant, name, split)
                        label = FAILED if answer is None else _label(task, answer)
                        answers.setdefault(cell, {})[sample_id] = truth, label
                    elif truth is not None and split in splits:
                        found.missing[answerer.variant, split] += 1
    for cell, pairs in answers.items():
        truths, labels = zip(*(pairs[sample_id] for sample_id in sorted(pairs)), strict=True)
        found.cells[cell] = Outcomes.of(TASKS[cell.task], truths, labels)
    model = min((answerer.model for answerer in answerers), default="")
    found.contrasts = _contrasts(answers, model, partition.name)
    return found


def _contrasts(answers: Mapping[Cell, Mapping[str, tuple[str, str]]], model: str, partition: str) -> list[Contrast]:
    """Select samples of test splits on which variants of a model differ."""
    right: dict[tuple[str, str, str], dict[str, bool]] = {}
    for cell, pairs in answers.items():
        if cell.model == model and cell.split in TEST_SPLITS:
            for sample_id, (true, answer) in pairs.items():
                right.setdefault((cell.task, cell.split, sample_id), {})[cell.variant] = true == answer
    found = (contrast_of(*sample, variants, partition) for sample, variants in right.items())
    return evenly((one for one in found if one is not None), MAX_CONTRASTS)


def _samples(outside: Counter[tuple[str, str, str, str]]) -> dict[str, dict[str, int]]:
    """Count samples by the task's code and split: each once, though every variant has it."""
    found: dict[str, dict[str, int]] = {}
    for (code, split, _, _), count in sorted(outside.items()):
        splits = found.setdefault(code, {})
        splits[split] = max(count, splits.get(split, 0))
    return found


def _described(sample_id: str, output: str, options: Sequence[str]) -> str:
    shown = ", ".join(repr(option[:40]) for option in options[:6]) + (", …" if len(options) > 6 else "")
    return f"sample {sample_id}: {output[:80]!r} is none of {shown}, or maps to no label of its task"


def _label(task: Task, option: str) -> str:
    return task.label(option) if task.labels else option


def _predictions(run: Run, partition: str) -> dict[tuple[str, str, str], tuple[str, str | None]]:
    """Key and answer of each prediction by model, variant and sample."""
    rows = run.read("predictions", _PREDICTION, partition=partition)
    return {
        (model, variant, sample_id): (key, answer)
        for model, variant, sample_id, key, answer in zip(
            *(rows[name].to_pylist() for name in _PREDICTION), strict=True
        )
    }


def _rows(batch: pa.RecordBatch) -> zip[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in batch.columns), strict=True)
