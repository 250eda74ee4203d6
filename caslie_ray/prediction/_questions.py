"""The questions of a partition: instructions, and who answers them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pyarrow.compute as pc

from caslie_ray.prediction._answerers import Answerer
from caslie_ray.storage.run import Run

__all__ = ["COLUMNS", "ID_COLUMNS", "Place", "Question", "read_questions"]

Place = tuple[str, str, str]
"""Sample id, model and variant: what identifies a row of `predictions`."""

ID_COLUMNS = ["sample_id", "task", "split", "variant", "source_ids"]
COLUMNS = [*ID_COLUMNS, "prompt", "prompt_fields", "prompt_captions", "options"]


class Question:
    """One instruction for one model.

    Args:
        answerer: who answers.
        row: the row of `instructions`.
    """

    def __init__(self, answerer: Answerer, row: dict[str, Any]) -> None:
        self.answerer = answerer
        self.row = row

    @cached_property
    def key(self) -> str:
        """The key of its answer, which depends on the model and the prompt."""
        return self.answerer.key(self.row["prompt"])

    @property
    def place(self) -> Place:
        """The row of `predictions` that answers it."""
        return self.row["sample_id"], self.answerer.model, self.answerer.variant


def read_questions(
    run: Run,
    partition: str,
    answerers: Sequence[Answerer],
    splits: Sequence[str],
    columns: Sequence[str] | None = None,
) -> list[Question]:
    """Return the questions of a partition.

    Args:
        run: contains the instructions.
        partition: the partition.
        answerers: who answers.
        splits: the splits that are answered.
        columns: columns of `instructions` to read; by default all that a request needs.

    Raises:
        RunError: a table cannot be read.
    """
    questions: list[Question] = []
    for table in dict.fromkeys(answerer.table for answerer in answerers):
        here = [answerer for answerer in answerers if answerer.table == table]
        variants = sorted({answerer.reads for answerer in here})
        where = pc.field("split").isin(list(splits)) & pc.field("variant").isin(variants)
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for path in run.files(table, partition):
            for row in run.read_file(path, columns or COLUMNS, where).to_pylist():
                rows[row["sample_id"], row["variant"]] = row
        for answerer in here:
            questions += [
                Question(answerer, row)
                for row in rows.values()
                if row["variant"] == answerer.reads and answerer.answers(row["task"])
            ]
    return questions
