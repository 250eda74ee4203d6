"""The work on one partition: read what is asked, see what is answered, ask the rest, write what was said."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.engines import Generation, Request
from caslie_ray.errors import RunError, StoreError
from caslie_ray.hashing import content_id
from caslie_ray.prediction._answerers import Answerer
from caslie_ray.prompts import Prompt, read_spans
from caslie_ray.roles import Role
from caslie_ray.storage.damaged_files import keep_copy
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import SCHEMAS
from caslie_ray.tasks import TASKS

__all__ = ["PREDICTIONS", "PredictOrder", "Stand", "stand_of", "tidy"]

PREDICTIONS = "predictions"
"""The table that is written."""

_ASKED = [
    "sample_id",
    "task",
    "split",
    "variant",
    "prompt",
    "prompt_fields",
    "prompt_captions",
    "options",
    "source_ids",
]


class Asks(Protocol):
    """Asks a model."""

    def generate(self, role: Role, requests: Sequence[Request]) -> list[Generation]:
        """Return one text a request, in order."""
        ...


class Question(NamedTuple):
    """One instruction for one model, and the key of its answer."""

    answerer: Answerer
    row: dict[str, Any]
    key: str

    @property
    def place(self) -> tuple[str, str, str]:
        """The row of `predictions` that it fills."""
        return self.row["sample_id"], self.answerer.model, self.answerer.variant


class Stand(NamedTuple):
    """How a partition stands.

    Attributes:
        asked: questions.
        missing: those without an answer.
        tidy: whether the table holds it in one file with no row too many, under the source ids of now.
        counts: answers, those that cannot be read, those that the engine could not give, and those to a prompt whose
            captions lost words, by variant.
    """

    asked: int
    missing: int
    tidy: bool
    counts: dict[str, Counter[str]]


@dataclass(frozen=True)
class PredictOrder:
    """What is to be done in a pass, the same for every partition.

    Attributes:
        run: where instructions and known answers are read, and answers are written.
        base: the role that is asked.
        answerers: who answers.
        splits: the splits that are answered.
        block_rows: questions that go to the model together.
        retry: whether retryable failures are asked again.
    """

    run: Run
    base: Role
    answerers: tuple[Answerer, ...]
    splits: tuple[str, ...]
    block_rows: int
    retry: bool

    @property
    def written(self) -> str:
        """The table that a pass writes."""
        return PREDICTIONS

    def work(self, partition: str, ask: Asks | None) -> Iterator[dict[str, int]]:
        """Ask what is missing in a partition, a block at a time; bring it into one file at the end.

        Raises:
            RunError: a table cannot be read or written.
        """
        assert ask is not None
        asked = questions(self, partition)
        held = _held(self, partition)
        missing = [question for question in asked if not held.answers(question, self.retry)]
        # Questions for one adapter share batches with no others; those of a length waste the least in padding.
        missing.sort(key=lambda question: (question.answerer.adapter or "", len(question.row["prompt"]), question.key))
        for at in range(0, len(missing), self.block_rows):
            block = missing[at : at + self.block_rows]
            answers = ask.generate(self.base, [_request(question) for question in block])
            rows = [_row(question, answer) for question, answer in zip(block, answers, strict=True)]
            stem = f"{partition}-{content_id(*(row['key'] for row in rows))[:16]}"
            self.run.write(PREDICTIONS, stem, pa.Table.from_pylist(rows, schema=SCHEMAS[PREDICTIONS]))
            yield {"views": len(rows), "errors": sum(row["error"] is not None for row in rows), "saved": 0}
        tidy(self, partition)


class _Held(NamedTuple):
    rows: dict[tuple[str, str, str], dict[str, Any]]
    files: list[str]
    surplus: int
    broken: list[str]

    @property
    def is_tidy(self) -> bool:
        return len(self.files) <= 1 and not self.surplus and not self.broken

    def answers(self, question: Question, retry: bool) -> bool:
        row = self.rows.get(question.place)
        return row is not None and row["key"] == question.key and not (retry and row["retryable"])


def questions(order: PredictOrder, partition: str) -> list[Question]:
    """Return all that is asked in a partition.

    Raises:
        RunError: a table cannot be read.
    """
    found: list[Question] = []
    for table in dict.fromkeys(answerer.table for answerer in order.answerers):
        here = [answerer for answerer in order.answerers if answerer.table == table]
        variants = sorted({answerer.reads for answerer in here})
        where = pc.field("split").isin(list(order.splits)) & pc.field("variant").isin(variants)
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for path in order.run.files(table, partition):
            for row in order.run.read_file(path, _ASKED, where).to_pylist():
                rows[row["sample_id"], row["variant"]] = row
        for answerer in here:
            for row in rows.values():
                if row["variant"] == answerer.reads and answerer.answers(row["task"]):
                    found.append(Question(answerer, row, answerer.key(row["prompt"])))
    return found


def stand_of(run: Run, partition: str, order: Callable[[Run], PredictOrder]) -> Stand:
    """Say how a partition stands, asking no model.

    Raises:
        RunError: a table cannot be read.
    """
    here = order(run)
    asked = questions(here, partition)
    held = _held(here, partition)
    missing = 0
    stale = bool(_with_other_ids(asked, held))
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for question in asked:
        if held.answers(question, here.retry):
            row = held.rows[question.place]
            count = counts[question.answerer.variant]
            count.update(
                answers=1, failed=int(row["failed"]), errors=int(row["error"] is not None),
                captions_cut=int(bool(row["captions_cut"])),
            )  # fmt: skip
        else:
            missing += 1
    return Stand(len(asked), missing, held.is_tidy and not stale, dict(counts))


def tidy(order: PredictOrder, partition: str) -> None:
    """Bring `predictions` of a partition into one file with each row once, under the source ids of its sample.

    Rows of models that do not answer now are kept: they were paid for.

    Raises:
        RunError: a table cannot be read or written.
    """
    held = _held(order, partition)
    stale = _with_other_ids(questions(order, partition), held)
    if held.is_tidy and not stale:
        return
    for question in stale:
        held.rows[question.place]["source_ids"] = question.row["source_ids"]
    whole: str | None = None
    kept = [held.rows[place] for place in sorted(held.rows)]
    for path in held.broken:
        keep_copy(order.run, path)
    if kept:
        whole = order.run.write(PREDICTIONS, partition, pa.Table.from_pylist(kept, schema=SCHEMAS[PREDICTIONS]))
    order.run.delete(path for path in {*held.files, *held.broken} if path != whole)


def _held(order: PredictOrder, partition: str) -> _Held:
    run = order.run
    files = run.files(PREDICTIONS, partition)
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    broken: list[str] = []
    surplus = 0
    for path in files:
        try:
            found = run.read_file(path).to_pylist()
        except StoreError:
            raise
        except RunError:  # left by a writer that died; its rows are asked again
            broken.append(path)
            continue
        for row in found:
            place = row["sample_id"], row["model"], row["variant"]
            surplus += place in rows
            rows[place] = row
    return _Held(rows, files, surplus, broken)


def _with_other_ids(asked: Sequence[Question], held: _Held) -> list[Question]:
    """Return the questions whose rows of `predictions` lack the source ids that their samples have by now."""
    return [
        question
        for question in asked
        if question.place in held.rows and held.rows[question.place]["source_ids"] != question.row["source_ids"]
    ]


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
