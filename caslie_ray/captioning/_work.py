"""The work on one partition: read what is missing, ask the models, write what they said."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from caslie_ray.captioning._ledger import KEPT, Ledger, holds, load, read_images, read_whole
from caslie_ray.captioning._rows import CaptionAnswer, Row, View, VoteAnswer, caption_rows
from caslie_ray.captioning._settled import settled_note
from caslie_ray.captioning._stages import Ask, advance
from caslie_ray.captioning._summary import count_rows
from caslie_ray.hashing import content_id
from caslie_ray.roles import ResolvedLineup
from caslie_ray.storage.damaged_files import keep_copy
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import ANSWERS

__all__ = ["WorkOrder", "compact", "tidy", "work"]


@dataclass(frozen=True)
class WorkOrder:
    """What is to be done in a pass, the same for every partition.

    Attributes:
        run: where views, images and known answers are read, and answers are written.
        lineup: who is asked.
        block_rows: views that go through the models together.
        retry: models whose retryable failures are asked again.
        stage: the one model that may be asked (staged); None for all (streamed).
    """

    run: Run
    lineup: ResolvedLineup
    block_rows: int
    retry: frozenset[str]
    stage: str | None = None

    @property
    def stage_folder(self) -> str:
        """The folder of the answers of the model that may be asked (staged)."""
        return next(role.answers for role in self.lineup.roles if role.name == self.stage)

    @property
    def written(self) -> str:
        """The table that a pass writes."""
        return "captions" if self.stage is None else self.stage_folder

    def work(self, partition: str, ask: Ask | None) -> Iterator[dict[str, int]]:
        """Do what is missing in a partition, see `work`."""
        return work(self, partition, ask)


def work(order: WorkOrder, partition: str, ask: Ask | None) -> Iterator[dict[str, int]]:
    """Do what is missing in a partition, a block at a time.

    What it wrote is brought into one file at the end, so that no run is left with a file for every block.

    Yields:
        After each block the number of views that it finished, of those in error, and of votes not asked for.

    Raises:
        RunError: a table cannot be read or written.
    """
    ledger = load(order.run, partition, order.lineup, order.retry)
    missing = _missing(order, ledger)
    allowed = None if order.stage is None else (order.stage,)
    images = functools.partial(read_images, order.run, partition)
    for at in range(0, len(missing), order.block_rows):
        block = missing[at : at + order.block_rows]
        ledger.known.fresh.clear()
        rows = advance(block, order.lineup, ledger.known, ask=ask, allowed=allowed, images=images)
        if order.stage is None:
            yield _write_rows(order, partition, rows)
        else:
            yield _write_answers(order, partition, ledger.known.fresh)
    if order.stage is None:
        tidy(order.run, partition, order.lineup)
    else:
        compact(order.run, partition, order.stage_folder)


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
    spare = [_answer_row(one) for one in known if one.key in dropped and one.error is None]
    if spare:
        _write_table(run, KEPT, partition, spare)


def _missing(order: WorkOrder, ledger: Ledger) -> list[View]:
    missing = []
    for row in advance(ledger.views, order.lineup, ledger.known):
        if order.stage is not None:
            wanted = row.waits_for == order.stage
        else:
            wanted = row.waits_for is not None or not holds(row.view.view_id, row.signature(order.lineup), ledger)
        if wanted:
            missing.append(row.view)
    return missing


def _write_rows(order: WorkOrder, partition: str, rows: Sequence[Row]) -> dict[str, int]:
    done = [row.finished(order.lineup) for row in rows if row.waits_for is None]
    if done:
        stem = f"{partition}-{content_id(*(row['view_id'] for row in done))[:16]}"
        order.run.write("captions", stem, caption_rows(done))
    voters = len(order.lineup.voters)
    return {
        "views": len(done),
        "errors": sum(row["error"] is not None for row in done),
        "saved": sum(voters - len(row["votes"]) for row in done if row["caption"] is not None),
    }


def _write_answers(order: WorkOrder, partition: str, fresh: Sequence[CaptionAnswer | VoteAnswer]) -> dict[str, int]:
    new = [_answer_row(answer) for answer in fresh]
    if new:
        _write_table(order.run, order.stage_folder, partition, new)
    return {"views": len(new), "errors": sum(row["error"] is not None for row in new), "saved": 0}


def _answer_row(answer: CaptionAnswer | VoteAnswer) -> dict[str, Any]:
    return {"text": None, "p_yes": None, **answer._asdict()}


def _write_table(run: Run, folder: str, partition: str, rows: Sequence[dict[str, Any]]) -> None:
    stem = f"{partition}-{content_id(*(str(row['key']) for row in rows))[:16]}"
    run.write(folder, stem, pa.Table.from_pylist(list(rows), schema=ANSWERS), schema=ANSWERS)
