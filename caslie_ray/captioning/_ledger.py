"""What a run already holds of its captions and votes, one partition at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from caslie_ray.captioning._rows import CaptionAnswer, View, VoteAnswer, read_views, signature
from caslie_ray.captioning._settled import settled
from caslie_ray.captioning._stages import Known, advance
from caslie_ray.captioning._summary import Counts
from caslie_ray.errors import RunError, StoreError
from caslie_ray.roles import ResolvedLineup
from caslie_ray.storage.damaged_files import salvaged
from caslie_ray.storage.run import Run
from caslie_ray.storage.schemas import ANSWERS, SCHEMAS

__all__ = ["KEPT", "Ledger", "PartitionState", "glance", "holds", "load", "read_images", "read_whole", "survey"]

KEPT = "answers/kept"
"""The folder of answers that no row of `captions` holds any more; another lineup, or the old one, may ask for them."""


@dataclass
class Ledger:
    """One partition of a run, as far as captions go.

    Attributes:
        views: its views.
        known: the answers that still hold under the lineup.
        stored: the rows of `captions` by view id, the newest where several were written.
        files: the files of `captions` that hold it.
        in_rows: keys of the answers in rows of `captions`.
        apart: keys of the answers that are kept outside of `captions`.
        orphans: rows of views that are no longer in `views`.
        surplus: rows of a view beyond the first.
        broken: files that cannot be read, left by a writer that died; their rows are asked again.
    """

    views: list[View]
    known: Known
    stored: dict[str, dict[str, Any]]
    files: list[str]
    in_rows: set[str] = field(default_factory=set)
    apart: set[str] = field(default_factory=set)
    orphans: int = 0
    surplus: int = 0
    broken: list[str] = field(default_factory=list)


@dataclass
class PartitionState:
    """How a partition stands against the ledger.

    Attributes:
        partition: its name.
        views: how many views it has.
        done: views whose row is stored and still holds.
        ready: views whose answers are all known but whose row is not written.
        waits: views that wait for each model, by the model's name.
        tidy: whether `captions` holds it in one file with each view exactly once.
        counts: what its rows say, where its file itself says so, see `settled`.
    """

    partition: str
    views: int
    done: int
    ready: int
    waits: Counter[str]
    tidy: bool
    counts: Counts | None = field(default=None, compare=False, repr=False)

    @property
    def missing(self) -> int:
        """Views whose row is not stored or no longer holds."""
        return self.views - self.done


def load(run: Run, partition: str, lineup: ResolvedLineup, retry: Collection[str] = ()) -> Ledger:
    """Read what a run holds of a partition.

    Args:
        run: the run.
        partition: the partition's name.
        lineup: answers under other fingerprints are left aside by their keys.
        retry: names of the models whose retryable failures are forgotten, so that they are asked again.
    """
    views = read_views(run.read("views", partition=partition))
    ledger = Ledger(views, Known(), {}, run.files("captions", partition))
    wanted = {view.view_id for view in views}
    for path in ledger.files:
        table = read_whole(run, path)
        if table is None:
            ledger.broken.append(path)
            for row in _answered_rows(run, path):
                _learn(ledger, row, lineup, retry)
            continue
        for row in table.to_pylist():
            _learn(ledger, row, lineup, retry)
            ledger.surplus += row["view_id"] in ledger.stored
            ledger.orphans += row["view_id"] not in wanted
            if row["view_id"] in wanted:
                ledger.stored[row["view_id"]] = row
    for role in lineup.roles:
        _learn_answers(run, partition, role.answers, ledger, role.name in retry, role is lineup.captioner)
    _learn_answers(run, partition, KEPT, ledger)
    return ledger


def glance(run: Run, partition: str, lineup: ResolvedLineup) -> PartitionState | None:
    """Say what is missing in a partition that is finished or not begun; None for any other, whose rows tell."""
    if (counts := settled(run, partition, lineup)) is not None:
        views = counts.views.total()
        return PartitionState(partition, views, views, 0, Counter(), tidy=True, counts=counts)
    if lineup.captioner is not None and not _begun(run, partition, lineup):
        rows = run.read("views", ["view_id"], partition).num_rows
        return PartitionState(partition, rows, 0, 0, Counter({lineup.captioner.name: rows}), tidy=True)
    return None


def survey(run: Run, partition: str, lineup: ResolvedLineup, retry: Collection[str] = ()) -> PartitionState:
    """Say what is missing in a partition, asking no model; rows are read only where work was begun and not finished."""
    if (seen := glance(run, partition, lineup)) is not None:
        return seen
    ledger = load(run, partition, lineup, retry)
    done = ready = 0
    waits: Counter[str] = Counter()
    for row in advance(ledger.views, lineup, ledger.known):
        if row.waits_for:
            waits[row.waits_for] += 1
        elif holds(row.view.view_id, row.signature(lineup), ledger):
            done += 1
        else:
            ready += 1
    tidy = len(ledger.files) <= 1 and not (ledger.orphans or ledger.surplus or ledger.broken)
    return PartitionState(partition, len(ledger.views), done, ready, waits, tidy)


def _begun(run: Run, partition: str, lineup: ResolvedLineup) -> bool:
    folders = ("captions", KEPT, *(role.answers for role in lineup.roles))
    return any(run.files(folder, partition) for folder in folders)


def holds(view_id: str, said: str, ledger: Ledger) -> bool:
    """Whether the stored row of a view says just that."""
    stored = ledger.stored.get(view_id)
    return stored is not None and signature(stored) == said


def read_images(run: Run, partition: str, image_ids: Collection[str]) -> Mapping[str, bytes]:
    """Return the encoded images of a partition, by id; those that are not there are left out."""
    found: dict[str, bytes] = {}
    ids = sorted(image_ids)
    # Pictures and views stand in the order of their ids: the range leaves most of a file unread.
    name = pc.field("image_id")
    where = (name >= ids[0]) & (name <= ids[-1]) & name.isin(ids)
    for path in run.files("images", partition):
        rows = run.read_file(path, ["image_id", "image"], where)
        found.update(zip(rows["image_id"].to_pylist(), rows["image"].to_pylist(), strict=True))
    return found


def read_whole(run: Run, path: str, columns: list[str] | None = None) -> pa.Table | None:
    """Return a file's rows; None where its bytes are no whole Parquet file.

    Raises:
        RunError: the store does not give its bytes; what a working store holds is not to be asked again.
    """
    try:
        return run.read_file(path, columns)
    except StoreError:
        raise
    except RunError:
        data = run.read_bytes(path)
        try:
            return pq.read_table(pa.BufferReader(data), columns=columns, schema=run.schema_of(path))
        except (pa.ArrowException, OSError):
            return None


def _answered_rows(run: Run, path: str) -> list[dict[str, Any]]:
    """The rows of a damaged file, with the answers that were given and can still be read and nothing else."""
    table = salvaged(run.read_bytes(path), SCHEMAS["captions"])
    rows: list[dict[str, Any]] = [] if table is None else table.to_pylist()
    for row in rows:
        if row["caption"] is None:
            row["caption_key"] = None
        row["votes"] = [vote for vote in row["votes"] or () if vote["key"] is not None and vote["p_yes"] is not None]
    return rows


def _learn(ledger: Ledger, row: Mapping[str, Any], lineup: ResolvedLineup, retry: Collection[str]) -> None:
    """Take the answers of a stored row, except the failures that are to be asked again."""
    known = ledger.known
    captioner = lineup.captioner.name if lineup.captioner else ""
    key = row["caption_key"]
    if key is not None:
        ledger.in_rows.add(key)
        text = row["caption"]
        failed = text is None and not any(vote["retryable"] for vote in row["votes"] or ())
        answer = CaptionAnswer(
            key, text, row["caption_tokens"] or 0, bool(row["caption_cut"]),
            row["error"] if text is None else None, failed and bool(row["retryable"]), row["caption_truncated"],
        )  # fmt: skip
        _keep(known.captions, answer, captioner in retry)
    for vote in row["votes"] or ():
        ledger.in_rows.add(vote["key"])
        answered = VoteAnswer(
            vote["key"],
            vote["p_yes"],
            vote["tokens"] or 0,
            bool(vote["cut"]),
            vote["error"],
            bool(vote["retryable"]),
        )
        _keep(known.votes, answered, vote["voter"] in retry)


def _learn_answers(
    run: Run, partition: str, folder: str, ledger: Ledger, forget: bool = False, captioner: bool = False
) -> None:
    """Take the answers of a folder, except the failures that are to be asked again."""
    for path in run.files(folder, partition):
        table = read_whole(run, path, ANSWERS.names)
        if table is None:
            ledger.broken.append(path)
            continue
        for row in table.to_pylist():
            key, rest = row["key"], (row["tokens"], row["cut"], row["error"], row["retryable"])
            ledger.apart.add(key)
            if captioner or row["text"] is not None:
                _keep(ledger.known.captions, CaptionAnswer(key, row["text"], *rest, row["truncated"]), forget)
            else:
                _keep(ledger.known.votes, VoteAnswer(key, row["p_yes"], *rest), forget)


_Answer = TypeVar("_Answer", CaptionAnswer, VoteAnswer)


def _keep(known: dict[str, _Answer], answer: _Answer, forget: bool) -> None:
    """Remember an answer; a failure never takes the place of an answer that was given."""
    if answer.error is not None:
        before = known.get(answer.key)
        if (answer.retryable and forget) or (before is not None and before.error is None):
            return
    known[answer.key] = answer
