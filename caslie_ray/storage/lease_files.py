"""The files of a run's lease, and which table files they invalidate.

Each job on a run has an epoch, an increasing number. Its files are in ``RUN/lease/``:

* ``epoch-<8 digits>.json``, the claim: created only if absent, so each epoch belongs to one job. The highest epoch
  holds the run. Claims are never deleted.
* ``epoch-<8 digits>.alive``, a counter that only the holder of the epoch increments.
* ``epoch-<8 digits>.done``, written when the job ends.
* ``epoch-<8 digits>-<time stamp>.at``, written by a job that took over the run: the store's timestamp of its claim.

A job writes table files with names that end in its epoch, such as ``3f-e00000002.parquet``. If a later job took over
the run, files of the former one are valid up to the time of the later claim, by the store's own timestamps. A copy of a
run has other timestamps, which say nothing about that time: in it, all files are valid.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow.fs as pafs

__all__ = ["LEASE", "Fence", "LeaseFiles", "epoch_name", "epoch_of", "lease_path", "stamp_path", "without_epoch"]

LEASE = "lease"
"""Folder of a run with the lease files."""

_FILE = re.compile(r"epoch-(\d{8})\.(json|alive|done)")
_STAMP = re.compile(r"epoch-(\d{8})-(\d+)\.at")
_EPOCH = re.compile(r"-e(\d{8})(?=\.parquet$)")


@dataclass(frozen=True)
class Fence:
    """What writers know of their job's lease; pickled into tasks with the run.

    Attributes:
        epoch: of the job.
        takeovers: timestamps of the claims that took over a former epoch, in ns, by that former epoch.
    """

    epoch: int
    takeovers: Mapping[int, int]


@dataclass(frozen=True)
class LeaseFiles:
    """A listing of a lease folder: the store's timestamps in ns, by epoch.

    `stamps` has the recorded timestamps of claims that took over the run.
    """

    claims: dict[int, int] = field(default_factory=dict)
    alive: dict[int, int] = field(default_factory=dict)
    done: dict[int, int] = field(default_factory=dict)
    stamps: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, infos: Iterable[pafs.FileInfo]) -> LeaseFiles:
        """Parse a listing; other names are ignored."""
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
        """The highest claimed epoch; 0 if there is none."""
        return max(self.claims, default=0)

    def takeovers(self) -> dict[int, int]:
        """Return the takeover time, in ns, of each epoch that had not been released by then.

        Takeovers at an unknown time are left out: those in a copied run, and of a job that ended right after its claim.
        Accepting a late file costs less than losing finished work.
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
    """Return the path of the file that records the timestamp, in ns, of an epoch's claim."""
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
    """Return the name of a table file written in an epoch; None: without a lease."""
    return f"{stem}.parquet" if epoch is None else f"{stem}-e{epoch:08d}.parquet"


def epoch_of(path: str) -> int | None:
    """Return the epoch in which a table file was written; None: without a lease."""
    found = _EPOCH.search(path)
    return int(found[1]) if found else None


def without_epoch(path: str) -> str:
    """Return the name of a table file without folder, epoch and extension."""
    return _EPOCH.sub("", posixpath.basename(path)).removesuffix(".parquet")
