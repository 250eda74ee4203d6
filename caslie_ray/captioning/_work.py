"""The work on one partition: read what is missing, ask the models, write what they said."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from caslie_ray.captioning._ledger import Ledger, holds, load, read_images
from caslie_ray.captioning._rows import Row, View, caption_rows
from caslie_ray.captioning._stages import Known, advance
from caslie_ray.engines import Choice, Generation, Request
from caslie_ray.ids import content_id
from caslie_ray.lineup import ResolvedLineup, Role
from caslie_ray.runs import Run
from caslie_ray.tables import ANSWERS

__all__ = ["RouterAsk", "WorkOrder", "tidy", "work"]


@dataclass(frozen=True)
class WorkOrder:
    """What is to be done in a pass, the same for every partition.

    Attributes:
        run: where views, images and known answers are read.
        out: where answers are written: the run itself, or a scratch folder while a plan is timed.
        lineup: who is asked.
        block_rows: views that go through the models together.
        retry: models whose retryable failures are asked again.
        stage: the one model that may be asked (staged); None for all (streamed).
    """

    run: Run
    out: Run
    lineup: ResolvedLineup
    block_rows: int
    retry: frozenset[str]
    stage: str | None = None


class RouterAsk:
    """Asks the models through the router."""

    def __init__(self, router: Any) -> None:
        self._router = router

    def generate(self, role: Role, requests: Sequence[Request]) -> list[Generation]:
        """Return one caption a request."""
        batch = ray.put(list(requests))
        answers: list[Generation] = ray.get(self._router.generate.remote(role.pool, [batch], len(requests)))
        return answers

    def choose(self, role: Role, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        """Return one choice a request."""
        batch = ray.put(list(requests))
        answers: list[Choice] = ray.get(self._router.choose.remote(role.pool, [batch], len(requests), tuple(choices)))
        return answers


def work(order: WorkOrder, partition: str, ask: Any) -> Iterator[dict[str, Any]]:
    """Do what is missing in a partition, a block at a time.

    Yields:
        After each block the number of views that it finished and of those in error.

    Raises:
        RunError: a table cannot be read or written.
    """
    ledger = load(order.run, partition, order.lineup, order.retry)
    missing = _missing(order, ledger)
    for at in range(0, len(missing), order.block_rows):
        block = missing[at : at + order.block_rows]
        known = Known(dict(ledger.known.captions), dict(ledger.known.votes))
        allowed = None if order.stage is None else (order.stage,)

        def images(ids: Collection[str]) -> Any:
            return read_images(order.run, partition, ids)

        rows = advance(block, order.lineup, known, ask=ask, allowed=allowed, images=images)
        if order.stage is None:
            yield _write_rows(order, partition, rows)
        else:
            yield _write_answers(order, partition, ledger.known, known)
        ledger.known = known


def tidy(run: Run, partition: str, lineup: ResolvedLineup) -> int:
    """Bring `captions` of a partition into one file with each view of `views` once; return the rows.

    Rows whose answers are not all known keep what is stored of them.

    Raises:
        RunError: a table cannot be read or written.
    """
    ledger = load(run, partition, lineup)
    kept: list[dict[str, Any]] = []
    for row in advance(ledger.views, lineup, ledger.known):
        stored = ledger.stored.get(row.view.view_id)
        if row.waits_for is None:
            kept.append(row.finished(lineup))
        elif stored is not None:
            kept.append(stored)
    kept.sort(key=lambda row: str(row["view_id"]))
    whole = run.path("captions", f"{partition}.parquet")
    if kept:
        run.write("captions", partition, caption_rows(kept))
    run.delete(path for path in {*ledger.files, *ledger.broken} if path != whole or not kept)
    return len(kept)


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


def _write_rows(order: WorkOrder, partition: str, rows: Sequence[Row]) -> dict[str, Any]:
    done = [row.finished(order.lineup) for row in rows if row.waits_for is None]
    if done:
        stem = f"{partition}-{content_id(*(row['view_id'] for row in done))[:16]}"
        order.out.write("captions", stem, caption_rows(done))
    return {"views": len(done), "errors": sum(row["error"] is not None for row in done)}


def _write_answers(order: WorkOrder, partition: str, before: Known, after: Known) -> dict[str, Any]:
    role = next(role for role in order.lineup.roles if role.name == order.stage)
    new: list[dict[str, Any]] = []
    for caption in after.captions.values():
        if before.captions.get(caption.key) is not caption:
            new.append({**caption._asdict(), "p_yes": None})
    for vote in after.votes.values():
        if before.votes.get(vote.key) is not vote:
            new.append({**vote._asdict(), "text": None})
    if new:
        stem = f"{partition}-{content_id(*(str(row['key']) for row in new))[:16]}"
        order.out.write(role.answers, stem, pa.Table.from_pylist(new, schema=ANSWERS), schema=ANSWERS)
    return {"views": len(new), "errors": sum(row["error"] is not None for row in new)}
