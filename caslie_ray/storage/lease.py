"""One job at a time per run: a lease with fencing.

Creating the claim of the next epoch acquires the run, see `caslie_ray.storage.lease_files`; only this create-if-absent
must be atomic. A job may claim the run if the last holder released it, if the holder's process on this
machine is gone, or if the holder's counter did not change for the length of its lease. That time is measured on the
claimant's own clock: clocks of two machines are never compared. A former holder that wakes up finds the later claim
before its next write or delete, which is refused."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import pyarrow.fs as pafs

from caslie_ray.errors import RunError, RunLocked
from caslie_ray.storage._conditional_writes import create_if_absent
from caslie_ray.storage._process_identity import machine_id, start_time
from caslie_ray.storage._takeover import RENEWALS_PER_LEASE, may_claim
from caslie_ray.storage.claims import Claim, list_lease, read_claim
from caslie_ray.storage.filesystems import local_path
from caslie_ray.storage.lease_files import LEASE, Fence, LeaseFiles, lease_path, stamp_path
from caslie_ray.storage.run import Run

__all__ = ["RunLease"]

log = logging.getLogger(__name__)

LEASE_S = 60.0
"""Seconds without a renewal after which another job may take over a run."""

_ATTEMPTS = 20


class RunLease:
    """Context manager that holds a run for a job.

    Args:
        run: the run.
        job: the job's name.
        submission: the id under which the job was submitted to a cluster.
        lease_s: seconds without a renewal after which another job may take over the run.
        on_lost: called from another thread when another job has taken over the run, because this process paused.

    Raises:
        RunLocked: another job holds the run.
        RunError: the store refuses, or has no conditional writes.
    """

    def __init__(
        self,
        run: Run,
        job: str,
        *,
        submission: str = "",
        lease_s: float = LEASE_S,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        me = psutil.Process()
        self.run = run
        """The run that the job must use: its writers check the lease."""
        self.taken_over = False
        """Whether another job has taken over the run."""
        # A renewal with the retries of other work could come after the lease has expired.
        retry_policy = replace(run.retry_policy, total_s=min(run.retry_policy.total_s, lease_s / RENEWALS_PER_LEASE))
        self._run = replace(run, retry_policy=retry_policy, fence=None)
        self._on_lost = on_lost
        self._released = threading.Event()
        self._thread: threading.Thread | None = None
        self._epoch = 0
        self._claim = Claim(
            uuid.uuid4().hex, job, socket.gethostname(), machine_id(), me.pid, start_time(me), submission,
            time.time(), lease_s,
        )  # fmt: skip

    def __enter__(self) -> Self:
        try:
            self._acquire()
        except BaseException:
            self._release()
            raise
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._released.set()
        if self._thread is not None:
            self._thread.join()
        self._release()

    def _path(self, epoch: int, kind: str) -> str:
        return lease_path(self._run.lease_folder, epoch, kind)

    def _acquire(self) -> None:
        for _ in range(_ATTEMPTS):
            # A job that wrote nothing deletes its lease folder, perhaps while this one lists it.
            with suppress(FileNotFoundError):
                last = list_lease(self._run).latest
                if (not last or may_claim(self._run, last, self._claim.lease_s)) and self._create(last + 1):
                    break
        else:
            raise RunLocked(f"{self._run.label} is being claimed by other jobs: run the same command again")
        files = list_lease(self._run)
        self.run = replace(self.run, fence=Fence(self._epoch, self._takeovers(files)))
        self._run.delete(self._path(epoch, "alive") for epoch in files.alive if epoch < self._epoch)

    def _takeovers(self, files: LeaseFiles) -> dict[int, int]:
        """Return when former epochs were taken over; if this epoch takes over, record its moment."""
        claimed = files.claims.get(self._epoch)
        if claimed is None:
            return files.takeovers()
        takeovers = replace(files, stamps={**files.stamps, self._epoch: claimed}).takeovers()
        if self._epoch - 1 in takeovers:
            self._run.put(stamp_path(self._run.lease_folder, self._epoch, claimed), b"\n")
        return takeovers

    def _create(self, epoch: int) -> bool:
        """Create the claim of an epoch; return whether it is this job's."""
        path = self._path(epoch, "json")
        data = json.dumps(asdict(self._claim), indent=2).encode() + b"\n"

        def create() -> bool:
            # Read in any case: a store may ignore the condition, and after a lost response the next attempt finds this
            # job's own claim.
            create_if_absent(self._run.fs, path, data)
            return self._is_mine(epoch)

        if not self._run.with_retries("write", path, create):
            return False
        self._epoch = epoch
        return True

    def _is_mine(self, epoch: int) -> bool:
        claim = read_claim(self._run, epoch)
        return claim is not None and claim.id == self._claim.id

    def _renew(self) -> None:
        count = 0
        while not self._released.wait(self._claim.lease_s / RENEWALS_PER_LEASE):
            count += 1
            try:
                self._run.put(self._path(self._epoch, "alive"), b"%d\n" % count)
            except RunError as error:
                log.warning("the lease on the run cannot be renewed: %s", str(error).split("\n")[0])
            try:
                self._check()
            except RunError:  # the store does not answer other jobs either
                continue
            if self.taken_over:
                if self._on_lost is not None:
                    self._on_lost()
                return

    def _check(self) -> None:
        """Check whether a later epoch exists, or another job has this epoch."""
        later = self._run.info([self._path(self._epoch + 1, "json")])[0]
        claim = read_claim(self._run, self._epoch)
        is_foreign = claim is not None and claim.id != self._claim.id
        self.taken_over = self.taken_over or later.type != pafs.FileType.NotFound or is_foreign

    def _release(self) -> None:
        if not self._epoch:
            return
        with suppress(RunError, OSError):  # others see that the lease is not renewed
            self._check()
            if self.taken_over:
                return
            if self._epoch == 1 and (root := self._unused()) is not None:
                self._run.delete(self._path(1, kind) for kind in ("alive", "json"))
                (root / LEASE).rmdir()
                root.rmdir()
                return
            self._run.put(self._path(self._epoch, "done"), b"\n")
            self._run.delete([self._path(self._epoch, "alive")])

    def _unused(self) -> Path | None:
        """Return the run's local folder if it holds only the lease: a job that wrote nothing leaves no folder."""
        root = local_path(self._run.fs, self._run.root)
        return Path(root) if root is not None and os.listdir(root) == [LEASE] else None
