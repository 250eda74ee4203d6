"""The answers that a run already has in a partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from caslie_ray.errors import RunError, StoreError
from caslie_ray.prediction._questions import Place, Question
from caslie_ray.storage.run import Run

__all__ = ["PREDICTIONS", "KnownAnswers", "known_answers"]

PREDICTIONS = "predictions"
"""The table of answers."""


class KnownAnswers(NamedTuple):
    """Rows of `predictions` in a partition.

    Attributes:
        rows: the newest row of each place.
        files: the files.
        duplicates: number of older rows.
        broken: damaged files, left by a writer that died; their rows are asked again.
    """

    rows: dict[Place, dict[str, Any]]
    files: list[str]
    duplicates: int
    broken: list[str]

    def answers(self, question: Question, *, retry: bool) -> bool:
        """Return whether a question is answered; with `retry` a retryable failure is no answer."""
        row = self.rows.get(question.place)
        return row is not None and row["key"] == question.key and not (retry and row["retryable"])

    def is_merged(self, run: Run, partition: str) -> bool:
        """Return whether the partition is in one file, named after it, without duplicates."""
        names = [run.stem(path) for path in self.files]
        return names in ([], [partition]) and not self.duplicates and not self.broken

    def outdated_ids(self, asked: Sequence[Question]) -> list[Question]:
        """Return the questions whose rows lack the source ids that their samples have now."""
        return [
            question
            for question in asked
            if question.place in self.rows and self.rows[question.place]["source_ids"] != question.row["source_ids"]
        ]


def known_answers(run: Run, partition: str, columns: Sequence[str] | None = None) -> KnownAnswers:
    """Read the answers of a partition.

    Args:
        run: the run.
        partition: the partition.
        columns: columns to read; all by default.

    Raises:
        StoreError: the store does not answer.
    """
    files = run.files(PREDICTIONS, partition)
    rows: dict[Place, dict[str, Any]] = {}
    broken: list[str] = []
    duplicates = 0
    for path in files:
        try:
            found = run.read_file(path, columns).to_pylist()
        except StoreError:
            raise
        except RunError:
            broken.append(path)
            continue
        for row in found:
            place = row["sample_id"], row["model"], row["variant"]
            duplicates += place in rows
            rows[place] = row
    return KnownAnswers(rows, files, duplicates, broken)
