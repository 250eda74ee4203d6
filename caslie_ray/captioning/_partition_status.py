"""What is missing in a partition, without asking a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from caslie_ray.captioning._completion_marker import read_completion
from caslie_ray.captioning._counts import Counts
from caslie_ray.captioning._ledger import KEPT, load_ledger
from caslie_ray.captioning._voting import advance
from caslie_ray.roles import ResolvedLineup
from caslie_ray.storage.run import Run

__all__ = ["PartitionStatus", "partition_status", "quick_status"]


@dataclass
class PartitionStatus:
    """What a partition has and lacks.

    Attributes:
        partition: its name.
        views: number of its views.
        done: views whose row is stored and up to date.
        ready: views whose answers are all known but whose row is not written.
        waits: number of views that wait for each model, by the model's name.
        merged: whether `captions` has it in one file with each view exactly once.
        counts: counts of its rows, if its completion marker has them.
    """

    partition: str
    views: int
    done: int
    ready: int
    waits: Counter[str]
    merged: bool
    counts: Counts | None = field(default=None, compare=False, repr=False)

    @property
    def missing(self) -> int:
        """Views whose row is not stored or is outdated."""
        return self.views - self.done


def quick_status(run: Run, partition: str, lineup: ResolvedLineup) -> PartitionStatus | None:
    """Return the status of a partition that is finished or not started; None for others, whose rows must be read."""
    if (counts := read_completion(run, partition, lineup)) is not None:
        views = counts.views.total()
        return PartitionStatus(partition, views, views, 0, Counter(), merged=True, counts=counts)
    if lineup.captioner is not None and not _is_started(run, partition, lineup):
        rows = run.read("views", ["view_id"], partition).num_rows
        return PartitionStatus(partition, rows, 0, 0, Counter({lineup.captioner.name: rows}), merged=True)
    return None


def partition_status(run: Run, partition: str, lineup: ResolvedLineup, retry: Collection[str] = ()) -> PartitionStatus:
    """Return the status of a partition; rows are read only if it is started and not finished.

    Args:
        run: the run.
        partition: the partition's name.
        lineup: the models and the voting rule.
        retry: names of the models whose retryable failures count as missing.

    Raises:
        RunError: a table cannot be read.
    """
    if (status := quick_status(run, partition, lineup)) is not None:
        return status
    ledger = load_ledger(run, partition, lineup, retry)
    done = ready = 0
    waits: Counter[str] = Counter()
    for row in advance(ledger.views, lineup, ledger.known):
        if row.waits_for:
            waits[row.waits_for] += 1
        elif ledger.is_stored(row.view.view_id, row.signature(lineup)):
            done += 1
        else:
            ready += 1
    # A single block file has no completion marker yet.
    in_place = all(run.stem(path) == partition for path in ledger.files)
    merged = in_place and not (ledger.orphans or ledger.duplicates or ledger.damaged)
    return PartitionStatus(partition, len(ledger.views), done, ready, waits, merged)


def _is_started(run: Run, partition: str, lineup: ResolvedLineup) -> bool:
    folders = ("captions", KEPT, *(role.answers for role in lineup.roles))
    return any(run.files(folder, partition) for folder in folders)
