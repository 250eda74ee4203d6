"""The files of a partition after a chain: merged into one file per table, with each view exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from caslie_ray.captioning._ledger import KEPT, Ledger, load, read_whole
from caslie_ray.captioning._rows import CaptionAnswer, VoteAnswer, caption_rows
from caslie_ray.captioning._settled import settled_note
from caslie_ray.captioning._stages import advance
from caslie_ray.captioning._summary import count_rows
from caslie_ray.captioning._view_blocks import answer_row
from caslie_ray.hashing import content_id
from caslie_ray.roles import ResolvedLineup
from caslie_ray.storage.damaged_files import keep_copy
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import ANSWERS

__all__ = ["compact", "tidy", "write_answers"]


def tidy(run: Run, partition: str, lineup: ResolvedLineup) -> int:
    """Bring `captions` of a partition into one file with each view of `views` once; return how many still wait.

    Rows whose answers are not all known keep what is stored of them. Where nothing is left to do or to ask again,
    the file says so itself, see `settled`. Answers that no row holds any more, for
    the lineup or the views have changed, are kept apart: they were paid for, and may be asked for again.

    Raises:
        RunError: a table cannot be read or written.
    """
    ledger = load(run, partition, lineup)
    kept: list[dict[str, Any]] = []
    whole: str | None = None
    waiting = 0
    for row in advance(ledger.views, lineup, ledger.known):
        stored = ledger.stored.get(row.view.view_id)
        waiting += row.waits_for is not None
        if row.waits_for is None:
            kept.append(row.finished(lineup))
        elif stored is not None:
            kept.append(stored)
    kept.sort(key=lambda row: str(row["view_id"]))
    _set_aside(run, partition, ledger, kept)
    for path in ledger.broken:
        keep_copy(run, path)
    if kept:
        counts = count_rows({view.view_id: view.task for view in ledger.views}, kept, lineup)
        open_ = waiting or counts.totals["missing"] or counts.totals["orphans"] or counts.totals["retryable"]
        note = None if open_ else settled_note(run, partition, lineup, counts)
        whole = run.write("captions", partition, caption_rows(kept), note=note)
    run.delete(path for path in {*ledger.files, *ledger.broken} if path != whole)
    return waiting


def compact(run: Run, partition: str, folder: str) -> None:
    """Bring the answers of one model in a partition into one file, for what reads them many times.

    Raises:
        RunError: a table cannot be read or written.
    """
    found = {path: read_whole(run, path, ANSWERS.names) for path in run.files(folder, partition)}
    whole = {path: table for path, table in found.items() if table is not None}
    if len(whole) > 1:
        written = run.write(folder, partition, pa.concat_tables(whole.values()), schema=ANSWERS)
        run.delete(path for path in whole if path != written)


def _set_aside(run: Run, partition: str, ledger: Ledger, kept: Sequence[dict[str, Any]]) -> None:
    held = {row["caption_key"] for row in kept} | {vote["key"] for row in kept for vote in row["votes"] or ()}
    dropped = ledger.in_rows - ledger.apart - held
    known: list[CaptionAnswer | VoteAnswer] = [*ledger.known.captions.values(), *ledger.known.votes.values()]
    spare = [answer_row(one) for one in known if one.key in dropped and one.error is None]
    if spare:
        stem = f"{partition}-{content_id(*(str(row['key']) for row in spare))[:16]}"
        write_answers(run, KEPT, stem, spare)


def write_answers(run: Run, folder: str, stem: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write answers of one model, or of many in `KEPT`.

    Raises:
        RunError: the store refuses.
    """
    run.write(folder, stem, pa.Table.from_pylist(list(rows), schema=ANSWERS), schema=ANSWERS)
