"""The ledger: what a run already has of the captions and votes of a partition."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa

from caslie_ray.captioning._known_answers import KnownAnswers
from caslie_ray.captioning._rows import CaptionAnswer, View, VoteAnswer, read_views, signature
from caslie_ray.captioning._table_files import read_undamaged, salvaged_rows
from caslie_ray.roles import ResolvedLineup
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import ANSWERS

__all__ = ["KEPT", "Ledger", "load_ledger"]

KEPT = "answers/kept"
"""The folder of answers that no row of `captions` contains any more; another lineup, or the old one, may need them."""


@dataclass
class Ledger:
    """One partition of a run.

    Attributes:
        views: its views.
        known: its answers; those of other lineups are there too, under keys that the current one does not use.
        stored: rows of `captions` by view id, the newest if there are several.
        files: its files of `captions`.
        keys_in_rows: keys of the answers in rows of `captions`.
        keys_apart: keys of the answers stored outside of `captions`.
        orphans: number of rows whose views are no longer in `views`.
        duplicates: number of rows of a view beyond the first.
        damaged: unreadable files, left by a writer that died; their rows are computed again.
        answer_tables: the readable files of answers, by path.
    """

    views: list[View]
    known: KnownAnswers
    stored: dict[str, dict[str, Any]]
    files: list[str]
    keys_in_rows: set[str] = field(default_factory=set)
    keys_apart: set[str] = field(default_factory=set)
    orphans: int = 0
    duplicates: int = 0
    damaged: list[str] = field(default_factory=list)
    answer_tables: dict[str, pa.Table] = field(default_factory=dict)

    def is_stored(self, view_id: str, row_signature: str) -> bool:
        """Return whether the stored row of a view has this signature."""
        stored = self.stored.get(view_id)
        return stored is not None and signature(stored) == row_signature


def load_ledger(run: Run, partition: str, lineup: ResolvedLineup, retry: Collection[str] = ()) -> Ledger:
    """Read the ledger of a partition.

    Args:
        run: the run.
        partition: the partition's name.
        lineup: the models whose answer files are read.
        retry: names of the models whose retryable failures are dropped, so that they are asked again.

    Raises:
        RunError: a table cannot be read.
    """
    views = read_views(run.read("views", partition=partition))
    ledger = Ledger(views, KnownAnswers(), {}, run.files("captions", partition))
    view_ids = {view.view_id for view in views}
    for path in ledger.files:
        table = read_undamaged(run, path)
        if table is None:
            ledger.damaged.append(path)
            for row in salvaged_rows(run, path):
                _add_row_answers(ledger, row, lineup, retry)
            continue
        for row in table.to_pylist():
            _add_row_answers(ledger, row, lineup, retry)
            ledger.duplicates += row["view_id"] in ledger.stored
            ledger.orphans += row["view_id"] not in view_ids
            if row["view_id"] in view_ids:
                ledger.stored[row["view_id"]] = row
    for role in lineup.roles:
        _add_answer_files(run, partition, role.answers, ledger, role.name in retry, role is lineup.captioner)
    _add_answer_files(run, partition, KEPT, ledger)
    return ledger


def _add_row_answers(ledger: Ledger, row: Mapping[str, Any], lineup: ResolvedLineup, retry: Collection[str]) -> None:
    """Add the answers of a row of `captions`."""
    known = ledger.known
    captioner = lineup.captioner.name if lineup.captioner else ""
    key = row["caption_key"]
    if key is not None:
        ledger.keys_in_rows.add(key)
        text = row["caption"]
        failed = text is None and not any(vote["retryable"] for vote in row["votes"] or ())
        answer = CaptionAnswer(
            key, text, row["caption_tokens"] or 0, bool(row["caption_cut"]),
            row["error"] if text is None else None, failed and bool(row["retryable"]), row["caption_truncated"],
        )  # fmt: skip
        _add(known.captions, answer, captioner in retry)
    for vote in row["votes"] or ():
        ledger.keys_in_rows.add(vote["key"])
        answered = VoteAnswer(
            vote["key"],
            vote["p_yes"],
            vote["tokens"] or 0,
            bool(vote["cut"]),
            vote["error"],
            bool(vote["retryable"]),
        )
        _add(known.votes, answered, vote["voter"] in retry)


def _add_answer_files(
    run: Run, partition: str, folder: str, ledger: Ledger, retry: bool = False, captioner: bool = False
) -> None:
    """Add the answers of a folder of answers."""
    for path in run.files(folder, partition):
        table = read_undamaged(run, path, ANSWERS.names)
        if table is None:
            ledger.damaged.append(path)
            continue
        ledger.answer_tables[path] = table
        for row in table.to_pylist():
            key, rest = row["key"], (row["tokens"], row["cut"], row["error"], row["retryable"])
            ledger.keys_apart.add(key)
            if captioner or row["text"] is not None:
                _add(ledger.known.captions, CaptionAnswer(key, row["text"], *rest, row["truncated"]), retry)
            else:
                _add(ledger.known.votes, VoteAnswer(key, row["p_yes"], *rest), retry)


_Answer = TypeVar("_Answer", CaptionAnswer, VoteAnswer)


def _add(known: dict[str, _Answer], answer: _Answer, retry: bool) -> None:
    """Add an answer, except a failure that is retried or that would replace a successful answer."""
    if answer.error is not None:
        before = known.get(answer.key)
        if (answer.retryable and retry) or (before is not None and before.error is None):
            return
    known[answer.key] = answer
