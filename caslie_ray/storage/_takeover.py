"""Deciding whether a run may be claimed from the last holder of its lease."""

from __future__ import annotations

import logging
import time

import psutil
import pyarrow.fs as pafs

from caslie_ray.errors import RunError, RunLocked, StoreError
from caslie_ray.storage.claims import list_lease, read_claim
from caslie_ray.storage.lease_files import lease_path
from caslie_ray.storage.run import Run

__all__ = ["RENEWALS_PER_LEASE", "may_claim"]

log = logging.getLogger(__name__)

RENEWALS_PER_LEASE = 6
_POLL_S = 0.5


def may_claim(run: Run, epoch: int, default_lease_s: float) -> bool:
    """Return whether the run may be claimed from the holder of an epoch; False if another job has claimed it meanwhile.

    A holder elsewhere is watched for the length of its lease.

    Args:
        run: the run.
        epoch: the latest claim's.
        default_lease_s: length of the lease if the claim cannot be read, in seconds.

    Raises:
        RunLocked: the holder is alive.
    """
    claim = read_claim(run, epoch)
    lease_s = claim.lease_s if claim is not None else default_lease_s
    here = claim is not None and claim.is_here()
    watched_s, counter = 0.0, _counter(run, epoch)
    begun = time.monotonic()
    while True:
        files = list_lease(run)
        if files.latest != epoch or epoch in files.done:
            return files.latest == epoch
        status = claim.status() if claim is not None and here else None
        if here and status is None:
            log.info("the last job on the run has ended: %s", claim)
            return True
        # A stopped process on this machine may never continue, so it is watched like one elsewhere.
        if (here and status != psutil.STATUS_STOPPED) or _counter(run, epoch) != counter:
            raise RunLocked(
                f"{run.label} is held by {claim or f'epoch {epoch} of its lease'}: one job at a time works on a run;"
                " wait for it, or stop it"
            )
        if watched_s >= lease_s:
            log.info("the run is taken over from %s, which did not renew its lease", claim or f"epoch {epoch}")
            return True
        if not watched_s:
            log.info("the run is held by %s: watching it for %g s", claim or f"epoch {epoch}", lease_s)
        time.sleep(min(_POLL_S, lease_s / RENEWALS_PER_LEASE))
        # Measured before the next poll, which must come a full lease after the first one.
        watched_s = time.monotonic() - begun


def _counter(run: Run, epoch: int) -> bytes | None:
    """Return what the holder of an epoch wrote at its last renewal; None before the first one."""
    path = lease_path(run.lease_folder, epoch, "alive")
    if run.info([path])[0].type == pafs.FileType.NotFound:
        return None
    try:
        return run.read_bytes(path)
    except StoreError:
        raise
    except RunError:  # the next holder has deleted it
        return None
