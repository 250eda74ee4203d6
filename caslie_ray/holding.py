"""One job at a time on a run: the claim that a job has on it.

A job writes ``RUN/holder-<id>.json``, then looks who else has one. A claim whose holder is dead is taken over at
once: its process is gone on this machine, or its lease has run out, since a living holder renews it. Two jobs
that claim in the same moment both see both claims and step back for a random while, so that never two hold a
run; this needs a store that shows a file to all as soon as it is written, as local disks and object stores do.
"""

from __future__ import annotations

import json
import logging
import os
import random
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

from caslie_ray.runs import Run, RunError, StoreError

__all__ = ["Claim", "Holding", "RunHeld", "holders"]

log = logging.getLogger(__name__)

LEASE_S = 60.0
"""Seconds without a renewal after which a holder on another machine counts as dead."""

_PREFIX = "holder-"
_RENEWALS = 6
_LOOK_S = 0.5
_BOTH_S = 0.2
_TIMES = 20


class RunHeld(RunError):
    """Another job is at work on the run; the message says which."""


@dataclass(frozen=True)
class Claim:
    """What a holder says of itself.

    Attributes:
        id: its own name.
        job: the job, such as `caption`.
        host: name of its machine.
        machine: its machine as far as process ids go; differs between containers.
        pid: its process.
        started: when the process started, in seconds since 1970.
        submission: the id under which it was submitted to a cluster; empty where it was not.
        since: when it claimed the run, in seconds since 1970.
        renewed: when it last said that it lives.
        lease_s: for how many seconds that holds.
        held: it has looked, and nobody else was there.
    """

    id: str
    job: str
    host: str
    machine: str
    pid: int
    started: float
    submission: str
    since: float
    renewed: float
    lease_s: float
    held: bool = False

    def dead(self) -> bool:
        """Whether its process is gone on this machine, or its lease has run out."""
        if time.time() - self.renewed > self.lease_s:
            return True
        return self.machine == _machine() and not _runs(self.pid, self.started)

    def __str__(self) -> str:
        submitted = f", submitted as {self.submission}" if self.submission else ""
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        return f"{self.job} (process {self.pid} on {self.host}{submitted}, since {since})"


def holders(run: Run) -> list[Claim]:
    """Return the claims on a run whose holders live; there is at most one that is `held`."""
    return [claim for _, claim in _claims(run) if not claim.dead()]


class Holding:
    """Holds a run for a job, as a context.

    Args:
        run: the run.
        job: the job's name.
        submission: the id under which the job was submitted to a cluster.
        lease_s: seconds without a renewal after which others may take the run over.
        lost: called, from another thread, once the run was taken over while this process did not answer.

    Raises:
        RunHeld: another job is at work on the run.
        RunError: the store refuses.
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
        now = time.time()
        me = psutil.Process()
        # A renewal that waits for the store as long as other work does would come when the lease is over.
        self._run = replace(run, patience=replace(run.patience, total_s=min(run.patience.total_s, lease_s / _RENEWALS)))
        self._lost = lost
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._claim = Claim(
            uuid.uuid4().hex[:12], job, socket.gethostname(), _machine(), me.pid, me.create_time(), submission,
            now, now, lease_s,
        )  # fmt: skip
        self.taken = False
        """Whether the run was taken over."""

    def __enter__(self) -> Self:
        try:
            self._acquire()
        except BaseException:
            self._withdraw()
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
        self._withdraw()

    @property
    def _path(self) -> str:
        return self._run.path(f"{_PREFIX}{self._claim.id}.json")

    def _acquire(self) -> None:
        for _ in range(_TIMES):
            self._write()
            others = self._others()
            if not others:
                self._claim = replace(self._claim, held=True)
                self._write()
                return
            held = next((claim for claim in others if claim.held), None)
            if held is None:
                self._withdraw()
                time.sleep(random.uniform(0.0, _BOTH_S))
            elif held.machine == self._claim.machine or self._watch(held):
                raise RunHeld(
                    f"{self._run.label} is held by {held}: one job at a time works on a run; wait for it, or stop it"
                )
        raise RunHeld(f"{self._run.label} is being claimed by other jobs: run the same command again")

    def _others(self) -> list[Claim]:
        """Return the living claims of others; those of the dead are removed."""
        living: list[Claim] = []
        for path, claim in _claims(self._run):
            if claim.id == self._claim.id:
                continue
            if claim.dead():
                log.info("the run was left by %s, which is gone: taken over", claim)
                self._run.delete([path])
            else:
                living.append(claim)
        return living

    def _watch(self, other: Claim) -> bool:
        """Look at a claim from another machine until it is renewed (true), or is over."""
        log.info("the run is held by %s: looking whether it lives, %g s at most", other, other.lease_s)
        begun = time.monotonic()
        while time.monotonic() - begun < other.lease_s:
            self._write()
            now = next((claim for _, claim in _claims(self._run) if claim.id == other.id), None)
            if now is None or now.dead():
                return False
            if now.renewed != other.renewed:
                return True
            time.sleep(_LOOK_S)
        self._run.delete([self._run.path(f"{_PREFIX}{other.id}.json")])
        return False

    def _write(self) -> None:
        self._claim = replace(self._claim, renewed=time.time())
        self._run.put(self._path, json.dumps(asdict(self._claim), indent=2).encode() + b"\n")

    def _withdraw(self) -> None:
        with suppress(RunError, OSError):  # its lease will run out
            self._run.delete([self._path])
        if isinstance(self._run.fs, pafs.LocalFileSystem):
            with suppress(OSError):  # a job that wrote nothing leaves no folder
                Path(self._run.root).rmdir()

    def _renew(self) -> None:
        while not self._over.wait(self._claim.lease_s / _RENEWALS):
            try:
                if self._run.info([self._path])[0].type == pafs.FileType.NotFound:
                    self.taken = True
                    if self._lost is not None:
                        self._lost()
                    return
                self._write()
            except RunError as error:
                log.warning("the claim on the run cannot be renewed: %s", str(error).split("\n")[0])


def _claims(run: Run) -> list[tuple[str, Claim]]:
    """Return the claims on a run with their paths; one that is damaged is in nobody's way."""
    found: list[tuple[str, Claim]] = []
    for info in run.listed(run.root):
        if not (info.base_name.startswith(_PREFIX) and info.base_name.endswith(".json")):
            continue
        try:
            found.append((info.path, Claim(**json.loads(run.read_bytes(info.path)))))
        except StoreError:
            raise
        except (RunError, ValueError, TypeError):  # it was just given up, or is damaged
            continue
    return found


def _machine() -> str:
    """Return what names this machine, as far as ids of processes go."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _runs(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - started) < 1.0
    except psutil.NoSuchProcess:
        return False
