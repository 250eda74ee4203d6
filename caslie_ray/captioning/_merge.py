"""Merging a partition's files: one file of `captions` with each view exactly once, one file of answers per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from caslie_ray.captioning._completion_marker import completion_note
from caslie_ray.captioning._counts import count_rows
from caslie_ray.captioning._ledger import KEPT, Ledger, load_ledger
from caslie_ray.captioning._rows import CaptionAnswer, VoteAnswer, caption_rows
from caslie_ray.captioning._table_files import read_undamaged
from caslie_ray.captioning._view_blocks import answer_row
from caslie_ray.captioning._voting import advance
from caslie_ray.hashing import content_id
from caslie_ray.roles import ResolvedLineup
from caslie_ray.storage.damaged_files import keep_copy
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import ANSWERS

__all__ = ["merge_answers", "merge_partition", "write_answers"]


def merge_partition(run: Run, partition: str, lineup: ResolvedLineup) -> int:
    """Merge `captions` of a partition into one file with each view of `views` once, and each model's answers into one.

    A row that waits for a model keeps its stored, outdated version. If nothing is missing or retryable, the file gets
    the completion marker. Answers that are in no row any more, since the lineup or the views changed, are moved to
    `KEPT`: they were paid for, and may be needed again.

    Returns:
        The number of views that wait for a model.

    Raises:
        RunError: a table cannot be read or written.
    """
    ledger = load_ledger(run, partition, lineup)
    rows: list[dict[str, Any]] = []
    merged: str | None = None
    waiting = 0
    for row in advance(ledger.views, lineup, ledger.known):
        stored = ledger.stored.get(row.view.view_id)
        waiting += row.waits_for is not None
        if row.waits_for is None:
            rows.append(row.finished(lineup))
        elif stored is not None:
            rows.append(stored)
    rows.sort(key=lambda row: str(row["view_id"]))
    _keep_unused_answers(run, partition, ledger, rows)
    for path in ledger.damaged:
        keep_copy(run, path)
    if rows:
        counts = count_rows({view.view_id: view.task for view in ledger.views}, rows, lineup)
        unfinished = waiting or counts.totals["missing"] or counts.totals["orphans"] or counts.totals["retryable"]
        note = None if unfinished else completion_note(run, partition, lineup, counts)
        merged = run.write("captions", partition, caption_rows(rows), note=note)
    run.delete(path for path in {*ledger.files, *ledger.damaged} if path != merged)
    for role in lineup.roles:
        merge_answers(run, partition, role.answers, ledger.answer_tables)
    return waiting


def merge_answers(run: Run, partition: str, folder: str, read: Mapping[str, pa.Table] | None = None) -> None:
    """Merge a model's answers in a partition into one file, since later stages read them often.

    Args:
        run: the run.
        partition: the partition's name.
        folder: the model's folder of answers.
        read: its readable files by path, if they are in memory already.

    Raises:
        RunError: a table cannot be read or written.
    """
    files = run.files(folder, partition)
    if len(files) < 2:
        return
    if read is None:
        found = {path: read_undamaged(run, path, ANSWERS.names) for path in files}
    else:
        found = {path: read.get(path) for path in files}
    tables = {path: table for path, table in found.items() if table is not None}
    if len(tables) > 1:
        merged = run.write(folder, partition, pa.concat_tables(tables.values()), schema=ANSWERS)
        run.delete(path for path in tables if path != merged)


def write_answers(run: Run, folder: str, stem: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write answers of one model, or of several models in `KEPT`.

    Raises:
        RunError: the store refuses.
    """
    run.write(folder, stem, pa.Table.from_pylist(list(rows), schema=ANSWERS), schema=ANSWERS)


def _keep_unused_answers(run: Run, partition: str, ledger: Ledger, rows: Sequence[dict[str, Any]]) -> None:
    """Write the successful answers that were in rows of `captions` before and are in none of these to `KEPT`."""
    used = {row["caption_key"] for row in rows} | {vote["key"] for row in rows for vote in row["votes"] or ()}
    unused = ledger.keys_in_rows - ledger.keys_apart - used
    known: list[CaptionAnswer | VoteAnswer] = [*ledger.known.captions.values(), *ledger.known.votes.values()]
    kept = [answer_row(answer) for answer in known if answer.key in unused and answer.error is None]
    if kept:
        stem = f"{partition}-{content_id(*(str(row['key']) for row in kept))[:16]}"
        write_answers(run, KEPT, stem, kept)
