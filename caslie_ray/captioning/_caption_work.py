"""The work of a captioning chain: read views that lack answers, ask the models, write rows (EC³ and CQE)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from caslie_ray.captioning._absent_models import AbsentModels
from caslie_ray.captioning._ledger import Ledger, load_ledger
from caslie_ray.captioning._merge import merge_answers, merge_partition, write_answers
from caslie_ray.captioning._rows import CaptionAnswer, Row, VoteAnswer, caption_rows
from caslie_ray.captioning._table_files import read_images, read_undamaged
from caslie_ray.captioning._view_blocks import ViewBlock, answer_row, answers_of, cut_blocks, make_block, open_block
from caslie_ray.captioning._voting import advance
from caslie_ray.hashing import content_id
from caslie_ray.pipeline.work import Ask
from caslie_ray.roles import ResolvedLineup, Role
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import ANSWERS

__all__ = ["CaptionWork", "caption_partition"]


@dataclass(frozen=True)
class CaptionWork:
    """The work of one chain, the same for every partition; see `caslie_ray.pipeline.work.Work`.

    Attributes:
        run: where views, images and known answers are read, and answers are written.
        lineup: the models and the voting rule.
        block_rows: views per block.
        retry: models whose retryable failures are asked again.
        stage: the model of this stage, asked with the others of its checkpoint (staged); None: all models (streamed).
        absent: why a model cannot answer, by name; its requests fail and are retryable.
    """

    run: Run
    lineup: ResolvedLineup
    block_rows: int
    retry: frozenset[str]
    stage: str | None = None
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that are asked, in order: the captioner, then the voters."""
        return self.lineup.roles_of_stage(self.stage)

    def read(self, partition: str) -> Iterator[pa.Table]:
        """Yield the views of a partition that wait for an answer or a row, in blocks with their images.

        Deterministic given the run's file listing: a recomputed block is identical.

        Raises:
            RunError: a table cannot be read.
        """
        ledger = load_ledger(self.run, partition, self.lineup, self.retry)
        missing = {row.view.view_id: row for row in self._missing(ledger)}
        if not missing:
            return
        stored = {row["view_id"]: row for row in self.run.read("views", partition=partition).to_pylist()}
        for views in cut_blocks([row.view for row in missing.values()], self.block_rows):
            rows = [missing[view.view_id] for view in views]
            images = read_images(self.run, partition, ids) if (ids := self._images_of(rows)) else {}
            yield make_block(partition, rows, stored, images, ledger.known, self.lineup)

    def answer(self, block: pa.Table, names: Sequence[str], ask: Ask) -> pa.Table:
        """Ask the models of one stage about a block; their answers are on disk when this returns.

        Args:
            block: from `read`, or from an earlier stage.
            names: names of the stage's roles.
            ask: asks the stage's engine.

        Raises:
            RunError: an answer cannot be written.
            PoolDown: the engine cannot be restarted.
        """
        opened = open_block(block)
        rows: list[Row] = []
        for role in self.roles:
            if role.name in names:
                rows = self._ask(opened, role, ask)
            elif role.name in self.absent:
                rows = self._advance(opened, role.name, AbsentModels(self.absent))
        captioner = self.lineup.captioner
        needs_images = captioner is not None and any(row.waits_for == captioner.name for row in rows)
        return opened.with_answers(self.lineup, rows, keep_images=needs_images)

    def write(self, block: pa.Table) -> dict[str, Any]:
        """Write the complete rows of a block; return the counts of `ProgressMonitor.add`, and the partition's name.

        Raises:
            RunError: a row cannot be written.
        """
        opened = open_block(block)
        for role in self.roles:
            if role.name in self.absent:
                self._ask(opened, role, AbsentModels(self.absent))
        rows = advance(opened.views, self.lineup, opened.known)
        counts = self._count_answers(opened, rows) if self.stage is not None else self._write_rows(opened, rows)
        return {**counts, "partition": opened.partition}

    def finish(self, partition: str) -> None:
        """Merge the files of a partition.

        Raises:
            RunError: a table cannot be read or written.
        """
        if self.stage is None:
            merge_partition(self.run, partition, self.lineup)
            return
        for role in self.roles:
            merge_answers(self.run, partition, role.answers)

    def _missing(self, ledger: Ledger) -> list[Row]:
        names = {role.name for role in self.roles}
        missing = []
        for row in advance(ledger.views, self.lineup, ledger.known):
            if self.stage is not None:
                is_missing = row.waits_for in names
            else:
                is_missing = row.waits_for is not None or not ledger.is_stored(
                    row.view.view_id, row.signature(self.lineup)
                )
            if is_missing:
                missing.append(row)
        return missing

    def _images_of(self, rows: Sequence[Row]) -> set[str]:
        captioner = self.lineup.captioner
        return {row.view.image_id for row in rows if captioner is not None and row.waits_for == captioner.name}

    def _advance(self, opened: ViewBlock, name: str, ask: Ask) -> list[Row]:
        return advance(opened.views, self.lineup, opened.known, ask=ask, allowed=(name,), images=opened.images)

    def _ask(self, opened: ViewBlock, role: Role, ask: Ask) -> list[Row]:
        written = self._written_answers(opened, role)
        for answer in written:
            opened.known.add(answer)
        opened.known.new.clear()
        rows = self._advance(opened, role.name, ask)
        if new := opened.known.new:
            write_answers(self.run, role.answers, opened.stem, [answer_row(answer) for answer in (*written, *new)])
        return rows

    def _written_answers(self, opened: ViewBlock, role: Role) -> list[CaptionAnswer | VoteAnswer]:
        """Return the answers that an earlier attempt at this block, on a replica that was lost, has written."""
        path = self.run.table_path(role.answers, opened.stem)
        if not self.run.info([path])[0].is_file or (table := read_undamaged(self.run, path, ANSWERS.names)) is None:
            return []
        retry = role.name in self.retry
        answers = answers_of(table, captioner=role is self.lineup.captioner)
        return [answer for answer in answers if not (retry and answer.retryable)]

    def _write_rows(self, opened: ViewBlock, rows: Sequence[Row]) -> dict[str, int]:
        done = [row.finished(self.lineup) for row in rows if row.waits_for is None]
        if done:
            stem = f"{opened.partition}-{content_id(*(row['view_id'] for row in done))[:16]}"
            self.run.write("captions", stem, caption_rows(done))
        voters = len(self.lineup.voters)
        return {
            "views": len(done),
            "errors": sum(row["error"] is not None for row in done),
            "saved": sum(voters - len(row["votes"]) for row in done if row["caption"] is not None),
        }

    def _count_answers(self, opened: ViewBlock, rows: Sequence[Row]) -> dict[str, int]:
        names = {role.name for role in self.roles}
        done = [row for row in rows if row.waits_for not in names]
        failed = sum(
            (row.caption is not None and row.caption.error is not None) or any(vote.error for _, vote in row.votes)
            for row in done
        )
        return {"views": len(done), "errors": failed, "saved": 0}


def caption_partition(work: CaptionWork, partition: str, ask: Ask) -> Iterator[dict[str, Any]]:
    """Do the work of a chain for one partition in this process.

    Yields:
        What `CaptionWork.write` returns, of each block.

    Raises:
        RunError: a table cannot be read or written.
    """
    names = [role.name for role in work.roles]
    for block in work.read(partition):
        yield work.write(work.answer(block, names, ask) if names else block)
    work.finish(partition)
