"""The work on one partition: read the questions, skip those that are answered, ask the rest, write the answers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from caslie_ray.engines import Generation, Request
from caslie_ray.errors import DamagedFile
from caslie_ray.hashing import content_id
from caslie_ray.pipeline.work import Ask
from caslie_ray.prediction._answerers import Answerer
from caslie_ray.prediction._completion_marker import completion_note, read_completion
from caslie_ray.prediction._known_answers import PREDICTIONS, KnownAnswers, known_answers
from caslie_ray.prediction._questions import COLUMNS, ID_COLUMNS, Question, read_questions
from caslie_ray.prompts import Prompt, read_spans
from caslie_ray.roles import Role
from caslie_ray.storage.damaged_files import keep_copy
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import SCHEMAS
from caslie_ray.tasks import TASKS

__all__ = ["PartitionStatus", "PredictionSpec", "merge_files", "partition_status"]

# Columns of `predictions` that a survey reads: all but the texts.
_STATUS_COLUMNS = [
    "sample_id", "model", "variant", "failed", "key", "error", "retryable", "captions_cut", "source_ids"
]  # fmt: skip


_BLOCK = pa.schema(
    [
        *(SCHEMAS["instructions"].field(name) for name in COLUMNS),
        ("model", pa.string()),
        ("answers_as", pa.string()),
    ]
)


class PartitionStatus(NamedTuple):
    """What is answered of a partition.

    Attributes:
        asked: questions.
        missing: questions without an answer.
        merged: whether `predictions` has it in one file, without duplicates, with the current source ids.
        counts: `answers`, `failed` (cannot be read), `errors` (the engine gave none) and `captions_cut` (the prompt's
            captions lost words), by variant.
    """

    asked: int
    missing: int
    merged: bool
    counts: dict[str, Counter[str]]


@dataclass(frozen=True)
class PredictionSpec:
    """The work of a pass, the same for every partition.

    Attributes:
        run: contains instructions and known answers; answers are written to it.
        base: the role that is asked.
        answerers: who answers.
        splits: the splits that are answered.
        block_rows: questions per request to the model.
        retry: whether retryable failures are asked again.
        absent: unused: a job does not go on without its base.
    """

    run: Run
    base: Role
    answerers: tuple[Answerer, ...]
    splits: tuple[str, ...]
    block_rows: int
    retry: bool

    absent: Mapping[str, str] = field(default_factory=dict)

    def read(self, partition: str) -> Iterator[pa.Table]:
        """Yield the questions of a partition that have no answer, in blocks.

        Raises:
            RunError: a table cannot be read.
        """
        known = known_answers(self.run, partition)
        asked = read_questions(self.run, partition, self.answerers, self.splits)
        missing = [question for question in asked if not known.answers(question, retry=self.retry)]
        # One adapter per batch; similar lengths reduce padding.
        missing.sort(key=lambda question: (question.answerer.adapter or "", len(question.row["prompt"]), question.key))
        for at in range(0, len(missing), self.block_rows):
            yield _block(partition, missing[at : at + self.block_rows])

    def answer(self, block: pa.Table, names: Sequence[str], ask: Ask) -> pa.Table:
        """Ask the base about a block; its answers are on disk when this returns.

        Raises:
            RunError: an answer cannot be written.
            PoolDown: the base answers nothing any more.
        """
        questions = _questions_of(block, self.answerers)
        partition = block.schema.metadata[b"partition"].decode()
        ids = [part for question in questions for part in (*question.place, question.key)]
        stem = f"{partition}-{content_id(*ids)[:16]}"
        table = self._answered(stem)
        if table is None:
            answers = ask.generate(self.base, [_request(question) for question in questions])
            rows = [_row(question, answer) for question, answer in zip(questions, answers, strict=True)]
            table = pa.Table.from_pylist(rows, schema=SCHEMAS[PREDICTIONS])
            self.run.write(PREDICTIONS, stem, table)
        return table.select(["error"])

    def _answered(self, stem: str) -> pa.Table | None:
        """Return the answers that an earlier attempt at a block, on a replica that was lost, has written."""
        path = self.run.table_path(PREDICTIONS, stem)
        if not self.run.info([path])[0].is_file:
            return None
        try:
            table = self.run.read_file(path)
        except DamagedFile:
            return None
        return None if self.retry and any(table["retryable"].to_pylist()) else table

    def write(self, block: pa.Table) -> dict[str, int]:
        """Return the counts of an answered block."""
        return {"views": block.num_rows, "errors": block.num_rows - block["error"].null_count, "saved": 0}


def _block(partition: str, questions: Sequence[Question]) -> pa.Table:
    rows = [{**one.row, "model": one.answerer.model, "answers_as": one.answerer.variant} for one in questions]
    return pa.Table.from_pylist(rows, schema=_BLOCK.with_metadata({"partition": partition}))


def _questions_of(block: pa.Table, answerers: Sequence[Answerer]) -> list[Question]:
    known = {(answerer.model, answerer.variant): answerer for answerer in answerers}
    return [Question(known[row["model"], row["answers_as"]], row) for row in block.to_pylist()]


def partition_status(run: Run, partition: str, spec: Callable[[Run], PredictionSpec]) -> PartitionStatus:
    """Return what is answered of a partition; asks no model.

    Of a finished partition only the footer of its file is read. Prompts are read only if there are answers to compare.

    Raises:
        RunError: a table cannot be read.
    """
    here = spec(run)
    finished = read_completion(run, partition, here.answerers, here.splits)
    if finished is not None:
        return PartitionStatus(_answers(finished), 0, True, finished)
    known = known_answers(run, partition, _STATUS_COLUMNS)
    columns = None if known.rows else ID_COLUMNS
    asked = read_questions(run, partition, here.answerers, here.splits, columns)
    missing = sum(not known.answers(question, retry=here.retry) for question in asked)
    merged = known.is_merged(run, partition) and not known.outdated_ids(asked)
    return PartitionStatus(len(asked), missing, merged, _counts(asked, known, retry=here.retry))


def merge_files(spec: PredictionSpec, partition: str) -> None:
    """Merge the files of a partition of `predictions` into one, each row once, with the current source ids.

    Rows of models that do not answer now are kept: they were paid for.

    Raises:
        RunError: a table cannot be read or written.
    """
    run = spec.run
    known = known_answers(run, partition)
    asked = read_questions(run, partition, spec.answerers, spec.splits)
    outdated = known.outdated_ids(asked)
    if known.is_merged(run, partition) and not outdated:
        return
    for question in outdated:
        known.rows[question.place]["source_ids"] = question.row["source_ids"]
    rows = [known.rows[place] for place in sorted(known.rows)]
    for path in known.broken:
        keep_copy(run, path)
    merged: str | None = None
    if rows:
        note = None
        if all(known.answers(question, retry=True) for question in asked):
            counts = _counts(asked, known, retry=True)
            note = completion_note(run, partition, spec.answerers, spec.splits, counts)
        table = pa.Table.from_pylist(rows, schema=SCHEMAS[PREDICTIONS])
        merged = run.write(PREDICTIONS, partition, table, note=note)
    run.delete(path for path in {*known.files, *known.broken} if path != merged)


def _counts(asked: Sequence[Question], known: KnownAnswers, *, retry: bool) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for question in asked:
        if known.answers(question, retry=retry):
            row = known.rows[question.place]
            counts[question.answerer.variant].update(
                answers=1, failed=int(row["failed"]), errors=int(row["error"] is not None),
                captions_cut=int(bool(row["captions_cut"])),
            )  # fmt: skip
    return dict(counts)


def _answers(counts: dict[str, Counter[str]]) -> int:
    return sum(count["answers"] for count in counts.values())


def _request(question: Question) -> Request:
    row = question.row
    prompt = Prompt(row["prompt"], read_spans(row["prompt_fields"]), read_spans(row["prompt_captions"]))
    return Request(question.key, prompt, adapter=question.answerer.adapter)


def _row(question: Question, answer: Generation) -> dict[str, Any]:
    row, failure = question.row, answer.failure
    chosen = None
    if failure is None:
        chosen = TASKS[row["task"]].read_answer(answer.text, row["options"] or ())
    return {
        "sample_id": row["sample_id"],
        "model": question.answerer.model,
        "variant": question.answerer.variant,
        "text": None if failure else answer.text,
        "answer": chosen,
        "failed": chosen is None,
        "key": question.key,
        "tokens": answer.prompt_tokens + answer.new_tokens,
        "cut": answer.cut,
        "captions_cut": answer.captions_cut,
        "source_ids": row["source_ids"],
        "error": failure.reason if failure else None,
        "retryable": failure is not None and failure.retryable,
    }
