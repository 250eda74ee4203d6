"""Claims: what the holder of a run's lease writes about itself."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace

from caslie_ray.errors import RunError, StoreError
from caslie_ray.storage._process_identity import machine_id, process_status
from caslie_ray.storage.lease_files import LeaseFiles, lease_path
from caslie_ray.storage.run import Run

__all__ = ["Claim", "holders", "list_lease", "read_claim"]


@dataclass(frozen=True)
class Claim:
    """What a lease holder writes about itself.

    Attributes:
        id: unique to the claim.
        job: the job, such as `caption`.
        host: name of its machine.
        machine: scope of its process id; differs between containers.
        pid: its process.
        started: when the process started, in seconds since boot.
        submission: the id under which it was submitted to a cluster; empty if it was not.
        since: when it claimed the run, in seconds since 1970, for messages.
        lease_s: seconds without a renewal after which the run may be taken over.
        renewed: the store's timestamp of its last renewal, in seconds since 1970, for messages; 0 in the file.
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
        """Return whether its process runs, or ran, on this machine."""
        return self.machine == machine_id()

    def status(self) -> str | None:
        """Return the status of its process, which must be on this machine; None if it has ended."""
        return process_status(self.pid, self.started)

    def __str__(self) -> str:
        submitted = f", submitted as {self.submission}" if self.submission else ""
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        return f"{self.job} (process {self.pid} on {self.host}{submitted}, since {since})"


def holders(run: Run) -> list[Claim]:
    """Return the claim that holds a run's lease, as a list of at most one.

    A holder on another machine counts until it has released the run or was taken over; see its `renewed`.
    """
    files = list_lease(run)
    epoch = files.latest
    if not epoch or epoch in files.done:
        return []
    claim = read_claim(run, epoch)
    if claim is None or (claim.is_here() and claim.status() is None):
        return []
    return [replace(claim, renewed=files.alive.get(epoch, files.claims[epoch]) / 1e9)]


def list_lease(run: Run) -> LeaseFiles:
    """List the lease folder of a run."""
    return LeaseFiles.of(run.listed(run.lease_folder))


def read_claim(run: Run, epoch: int) -> Claim | None:
    """Return the claim of an epoch; None if it is damaged, or is being written or deleted.

    Raises:
        StoreError: the store does not answer, or refuses.
    """
    try:
        return Claim(**json.loads(run.read_bytes(lease_path(run.lease_folder, epoch, "json"))))
    except StoreError:
        raise
    except (RunError, ValueError, TypeError):
        return None
