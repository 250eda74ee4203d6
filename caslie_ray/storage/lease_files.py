"""The files of a run's lease, and what they say about files of tables.

Each job on a run has an epoch, a number that counts up. Its files are in ``RUN/lease/``:

* ``epoch-<8 digits>.json``, the claim: created only if absent, so that one job has an epoch. The highest epoch holds
  the run. Claims are kept.
* ``epoch-<8 digits>.alive``, a counter that the holder of the epoch increments, and nobody else writes.
* ``epoch-<8 digits>.done``, written when the job ends.
* ``epoch-<8 digits>-<time stamp>.at``, written by a job that took the run over: the store's time stamp of its claim.

A job writes tables under names that end in its epoch, such as ``3f-e00000002.parquet``. Where a later job took the
run over, files of the former one count up to the moment of the later claim, by the store's own time stamps. A copy of
a run has other time stamps, which say nothing about that moment: in it, all files count.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow.fs as pafs

__all__ = ["LEASE", "Fence", "LeaseFiles", "epoch_name", "epoch_of", "lease_path", "stamp_path", "without_epoch"]

LEASE = "lease"
"""The folder of a run that holds its lease."""

_FILE = re.compile(r"epoch-(\d{8})\.(json|alive|done)")
_STAMP = re.compile(r"epoch-(\d{8})-(\d+)\.at")
_EPOCH = re.compile(r"-e(\d{8})(?=\.parquet$)")


@dataclass(frozen=True)
class Fence:
    """What a writer has to know of the lease that it works under; it is pickled into tasks with the run.

    Attributes:
        epoch: the epoch of its job.
        takeovers: time stamps of the claims that took a former epoch over, in ns, by that former epoch.
    """

    epoch: int
    takeovers: Mapping[int, int]


@dataclass(frozen=True)
class LeaseFiles:
    """A listing of a lease folder: time stamps of the store in ns, by epoch.

    `stamps` has those that claims had when they were made, of the jobs that took the run over.
    """

    claims: dict[int, int] = field(default_factory=dict)
    alive: dict[int, int] = field(default_factory=dict)
    done: dict[int, int] = field(default_factory=dict)
    stamps: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, infos: Iterable[pafs.FileInfo]) -> LeaseFiles:
        """Return the files of a listing; other names are ignored."""
        files = cls()
        kinds = {"json": files.claims, "alive": files.alive, "done": files.done}
        for info in infos:
            if found := _FILE.fullmatch(info.base_name):
                kinds[found[2]][int(found[1])] = info.mtime_ns or 0
            elif found := _STAMP.fullmatch(info.base_name):
                files.stamps[int(found[1])] = int(found[2])
        return files

    @property
    def latest(self) -> int:
        """The highest epoch that was claimed; 0 where none was."""
        return max(self.claims, default=0)

    def takeovers(self) -> dict[int, int]:
        """Return when each epoch was taken over that had not been released by then.

        Takeovers whose moment is not known are left out: those of a copied run, and of a job that ended right after
        its claim. To adopt a late file costs less than to lose what was finished.
        """
        found: dict[int, int] = {}
        for epoch in self.claims:
            claimed = self.claims.get(epoch + 1)
            if claimed is None or self.stamps.get(epoch + 1) != claimed:
                continue
            if self.done.get(epoch, claimed + 1) > claimed:
                found[epoch] = claimed
        return found


def stamp_path(folder: str, epoch: int, stamp: int) -> str:
    """Return the path of the file that keeps the time stamp, in ns, of an epoch's claim."""
    return posixpath.join(folder, f"epoch-{epoch:08d}-{stamp}.at")


def lease_path(folder: str, epoch: int, kind: str) -> str:
    """Return the path of an epoch's file.

    Args:
        folder: the lease folder.
        epoch: the epoch.
        kind: ``json``, ``alive`` or ``done``.
    """
    return posixpath.join(folder, f"epoch-{epoch:08d}.{kind}")


def epoch_name(stem: str, epoch: int | None) -> str:
    """Return the name of a table's file that is written in an epoch; None is a writer without a lease."""
    return f"{stem}.parquet" if epoch is None else f"{stem}-e{epoch:08d}.parquet"


def epoch_of(path: str) -> int | None:
    """Return the epoch in which a table's file was written; None where its writer had no lease."""
    found = _EPOCH.search(path)
    return int(found[1]) if found else None


def without_epoch(path: str) -> str:
    """Return a table's file name without folder, epoch and extension."""
    return _EPOCH.sub("", posixpath.basename(path)).removesuffix(".parquet")
