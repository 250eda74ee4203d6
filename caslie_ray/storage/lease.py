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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import pyarrow.fs as pafs

from caslie_ray.errors import RunError, RunLocked, StoreError
from caslie_ray.storage.conditional_writes import create_if_absent
from caslie_ray.storage.lease_files import LEASE, Fence, LeaseFiles, lease_path, stamp_path
from caslie_ray.storage.local_files import local_path
from caslie_ray.storage.run import Run

__all__ = ["Claim", "Holding", "holders"]

log = logging.getLogger(__name__)

LEASE_S = 60.0
"""Seconds without a renewal after which another job may take a run over."""

_RENEWALS = 6
_LOOK_S = 0.5
_ATTEMPTS = 20
# The time of the boot is read twice, in whole seconds.
_SAME_START_S = 1.5


@dataclass(frozen=True)
class Claim:
    """What a holder states about itself.

    Attributes:
        id: unique to the claim.
        job: the job, such as `caption`.
        host: name of its machine.
        machine: its machine as far as process ids go; differs between containers.
        pid: its process.
        started: when the process started, in seconds since its machine did.
        submission: the id under which it was submitted to a cluster; empty where it was not.
        since: when it claimed the run, in seconds since 1970, for messages.
        lease_s: seconds without a renewal after which it may be taken over.
        renewed: time stamp of the store at its last renewal, in seconds since 1970, for messages; 0 in the file.
    """

    id: str
    job: str
    host: str
    machine: str
    pid: int
    started: float
    submission: str
    since: float
    lease_s: float
    renewed: float = 0.0

    def is_here(self) -> bool:
        """Whether its process runs, or ran, on this machine."""
        return self.machine == _machine()

    def __str__(self) -> str:
        submitted = f", submitted as {self.submission}" if self.submission else ""
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        return f"{self.job} (process {self.pid} on {self.host}{submitted}, since {since})"


def holders(run: Run) -> list[Claim]:
    """Return the claim that holds a run, as a list of at most one.

    A holder on another machine counts until it has released the run or was taken over; see its `renewed`.
    """
    files = _lease_files(run)
    epoch = files.latest
    if not epoch or epoch in files.done:
        return []
    claim = _read_claim(run, epoch)
    if claim is None or (claim.is_here() and _process_status(claim) is None):
        return []
    return [replace(claim, renewed=files.alive.get(epoch, files.claims[epoch]) / 1e9)]


class Holding:
    """Holds a run for a job, as a context.

    Args:
        run: the run.
        job: the job's name.
        submission: the id under which the job was submitted to a cluster.
        lease_s: seconds without a renewal after which others may take the run over.
        lost: called, from another thread, once the run was taken over while this process did not answer.

    Raises:
        RunLocked: another job is at work on the run.
        RunError: the store refuses, or cannot create a file only if it is absent.
    """

    def __init__(
        self,
        run: Run,
        job: str,
        *,
        submission: str = "",
        lease_s: float = LEASE_S,
        lost: Callable[[], None] | None = None,
    ) -> None:
        me = psutil.Process()
        self.run = run
        """The run as the job is to use it: its writers check the lease."""
        self.taken = False
        """Whether the run was taken over."""
        # A renewal that waits for the store as long as other work does would come when the lease is over.
        patience = replace(run.patience, total_s=min(run.patience.total_s, lease_s / _RENEWALS))
        self._run = replace(run, patience=patience, fence=None)
        self._lost = lost
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._epoch = 0
        self._claim = Claim(
            uuid.uuid4().hex, job, socket.gethostname(), _machine(), me.pid, _started(me), submission,
            time.time(), lease_s,
        )  # fmt: skip

    def __enter__(self) -> Self:
        try:
            self._acquire()
        except BaseException:
            self._release()
            raise
        self._thread = threading.Thread(target=self._renew, name="holding", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._release()

    def _path(self, epoch: int, kind: str) -> str:
        return lease_path(self._run.lease_folder, epoch, kind)

    def _acquire(self) -> None:
        for _ in range(_ATTEMPTS):
            # A job that wrote nothing removes the folders that it made, perhaps while this one looks.
            with suppress(FileNotFoundError):
                last = _lease_files(self._run).latest
                if (not last or self._is_free(last)) and self._create(last + 1):
                    break
        else:
            raise RunLocked(f"{self._run.label} is being claimed by other jobs: run the same command again")
        files = _lease_files(self._run)
        self.run = replace(self.run, fence=Fence(self._epoch, self._takeovers(files)))
        self._run.delete(self._path(epoch, "alive") for epoch in files.alive if epoch < self._epoch)

    def _takeovers(self, files: LeaseFiles) -> dict[int, int]:
        """Return when former epochs were taken over; where this one takes over, keep its moment in the lease."""
        claimed = files.claims.get(self._epoch)
        if claimed is None:
            return files.takeovers()
        takeovers = replace(files, stamps={**files.stamps, self._epoch: claimed}).takeovers()
        if self._epoch - 1 in takeovers:
            self._run.put(stamp_path(self._run.lease_folder, self._epoch, claimed), b"\n")
        return takeovers

    def _create(self, epoch: int) -> bool:
        """Create the claim of an epoch; return whether this job has it."""
        path = self._path(epoch, "json")
        data = json.dumps(asdict(self._claim), indent=2).encode() + b"\n"

        def create() -> bool:
            # Read even where it was created: a store may ignore the condition. After a lost answer the next attempt
            # finds this job's own claim.
            create_if_absent(self._run.fs, path, data)
            return self._is_mine(epoch)

        if not self._run.patiently("write", path, create):
            return False
        self._epoch = epoch
        return True

    def _is_mine(self, epoch: int) -> bool:
        claim = _read_claim(self._run, epoch)
        return claim is not None and claim.id == self._claim.id

    def _is_free(self, epoch: int) -> bool:
        """Whether the run may be claimed from the holder of an epoch; false where others have claimed it meanwhile.

        Raises:
            RunLocked: the holder is alive.
        """
        claim = _read_claim(self._run, epoch)
        lease_s = claim.lease_s if claim is not None else self._claim.lease_s
        here = claim is not None and claim.is_here()
        watched_s, counter = 0.0, self._counter(epoch)
        begun = time.monotonic()
        while True:
            files = _lease_files(self._run)
            if files.latest != epoch or epoch in files.done:
                return files.latest == epoch
            status = _process_status(claim) if claim is not None and here else None
            if here and status is None:
                log.info("the last job on the run is gone: %s", claim)
                return True
            # A process of this machine that is stopped may never go on.
            if (here and status != psutil.STATUS_STOPPED) or self._counter(epoch) != counter:
                raise RunLocked(
                    f"{self._run.label} is held by {claim or f'epoch {epoch} of its lease'}: one job at a time works on"
                    " a run; wait for it, or stop it"
                )
            if watched_s >= lease_s:
                log.info("the run is taken over from %s, which did not renew its lease", claim or f"epoch {epoch}")
                return True
            if not watched_s:
                log.info("the run is held by %s: watching it for %g s", claim or f"epoch {epoch}", lease_s)
            time.sleep(min(_LOOK_S, lease_s / _RENEWALS))
            # Taken before the next look, which has to come a full lease after the first one.
            watched_s = time.monotonic() - begun

    def _counter(self, epoch: int) -> bytes | None:
        """Return what the holder of an epoch wrote at its last renewal; None before the first one."""
        path = self._path(epoch, "alive")
        if self._run.info([path])[0].type == pafs.FileType.NotFound:
            return None
        try:
            return self._run.read_bytes(path)
        except StoreError:
            raise
        except RunError:  # the next holder has removed it
            return None

    def _renew(self) -> None:
        count = 0
        while not self._over.wait(self._claim.lease_s / _RENEWALS):
            count += 1
            try:
                self._run.put(self._path(self._epoch, "alive"), b"%d\n" % count)
            except RunError as error:
                log.warning("the lease on the run cannot be renewed: %s", str(error).split("\n")[0])
            try:
                self._look()
            except RunError:  # the store does not answer; nor can another job have the run from it
                continue
            if self.taken:
                if self._lost is not None:
                    self._lost()
                return

    def _look(self) -> None:
        """Find out whether a later epoch has the run, or another job has this epoch."""
        later = self._run.info([self._path(self._epoch + 1, "json")])[0]
        claim = _read_claim(self._run, self._epoch)
        is_anothers = claim is not None and claim.id != self._claim.id
        self.taken = self.taken or later.type != pafs.FileType.NotFound or is_anothers

    def _release(self) -> None:
        if not self._epoch:
            return
        with suppress(RunError, OSError):  # others will see that the lease is not renewed
            self._look()
            if self.taken:
                return
            if self._epoch == 1 and (root := self._unused()) is not None:
                self._run.delete(self._path(1, kind) for kind in ("alive", "json"))
                (root / LEASE).rmdir()
                root.rmdir()
                return
            self._run.put(self._path(self._epoch, "done"), b"\n")
            self._run.delete([self._path(self._epoch, "alive")])

    def _unused(self) -> Path | None:
        """Return the run's folder where nothing but this job's lease is in it: a job that wrote nothing leaves none."""
        root = local_path(self._run.fs, self._run.root)
        return Path(root) if root is not None and os.listdir(root) == [LEASE] else None


def _lease_files(run: Run) -> LeaseFiles:
    return LeaseFiles.of(run.listed(run.lease_folder))


def _read_claim(run: Run, epoch: int) -> Claim | None:
    """Return the claim of an epoch; None where it is damaged, or just being written or removed."""
    try:
        return Claim(**json.loads(run.read_bytes(lease_path(run.lease_folder, epoch, "json"))))
    except StoreError:
        raise
    except (RunError, ValueError, TypeError):
        return None


def _machine() -> str:
    """Return what names this machine, as far as ids of processes go."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _started(process: psutil.Process) -> float:
    """Return when a process started, in seconds since its machine did, which a step of the clock does not change."""
    # Linux counts from the boot; elsewhere the time of the start was read from the clock at the start.
    return process.create_time() - (psutil.boot_time() if psutil.LINUX else 0.0)


def _process_status(claim: Claim) -> str | None:
    """Return the status of a claim's process on this machine; None where it is gone."""
    try:
        process = psutil.Process(claim.pid)
        status = process.status()
        is_gone = status == psutil.STATUS_ZOMBIE or abs(_started(process) - claim.started) >= _SAME_START_S
    except psutil.NoSuchProcess:
        return None
    return None if is_gone else str(status)
