"""Retries for object stores: transient errors are retried with backoff, permanent ones fail at once.

An object store has seconds in which it answers 500, throttles, or does not answer. Arrow tries each request three
times; what still fails is repeated as a whole.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from caslie_ray.errors import NoAnswer, StoreError
from caslie_ray.storage.filesystems import is_object_store
from caslie_ray.storage.redaction import brief

__all__ = ["DEFAULT_RETRIES", "RetryPolicy", "with_retries"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_WARN_AFTER_S = 5.0  # a job that seems to hang says why

_S3 = re.compile(r"AWS Error (\w+)(?: \(HTTP status (-?\d+)\))?")
_GCS = re.compile(r"google::cloud::Status\((\w+)")
_AZURE = re.compile(r"Azure Error: \[(\w*)\](?: (\d{3}))?")
_TRANSIENT = {
    *("SLOW_DOWN", "THROTTLING", "INTERNAL_FAILURE", "SERVICE_UNAVAILABLE", "NETWORK_CONNECTION", "REQUEST_TIMEOUT"),
    *("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "ABORTED"),
}
_DENIED = re.compile(
    r"access.?denied|access.?key|signature|token|permission|authoriz|authenticat|HTTP status 40[13]", re.I
)
_NO_BUCKET = re.compile(r"no.?such.?bucket|container.?not.?found|bucket does not exist", re.I)


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter and a time limit.

    Attributes:
        total_s: seconds after which no further attempt starts; the last one may end later.
        first_s: maximum pause between the first two attempts, in seconds; doubles with each further attempt.
        longest_s: upper limit of the pause, in seconds.
    """

    total_s: float = 60.0
    first_s: float = 0.5
    longest_s: float = 8.0


DEFAULT_RETRIES = RetryPolicy()
"""About a minute."""


def with_retries(
    filesystem: pafs.FileSystem,
    verb: str,
    path: str,
    action: Callable[[], _T],
    retry_policy: RetryPolicy = DEFAULT_RETRIES,
) -> _T:
    """Return what an action on a store returns, retrying transient errors of object stores.

    On other file systems the action runs once.

    Args:
        filesystem: where the action goes.
        verb: what it does to the path, such as ``read``, for messages.
        path: what it is done to.
        action: must be safe to repeat after a failure half-way, even if the store did what was asked.
        retry_policy: how long to retry.

    Raises:
        NoAnswer: the store did not answer in time.
        StoreError: the store refuses.
        OSError, pa.ArrowException: other errors of the action, such as a missing or damaged file.
    """
    begun = time.monotonic()
    pause_s = retry_policy.first_s
    warned = False
    while True:
        try:
            return action()
        except (OSError, pa.ArrowException) as error:
            message = _store_message(error) if is_object_store(filesystem) else None
            if message is None:
                raise
            waited_s = time.monotonic() - begun
            if not _is_transient(error, message):
                raise StoreError(f"cannot {verb} {path}: {brief(error)}; {_fix(message)}") from error
            if waited_s >= retry_policy.total_s:
                raise NoAnswer(
                    f"cannot {verb} {path}: the store did not answer in {waited_s:.0f} s of retries"
                    f" ({brief(error)}); run the same command again once it does, finished work is kept"
                ) from error
            if waited_s >= _WARN_AFTER_S and not warned:
                warned = True
                log.warning("the store does not answer, retrying to %s %s: %s", verb, path, brief(error))
        # Jitter: many workers that failed together must not come back together.
        time.sleep(min(pause_s * random.uniform(0.5, 1.0), retry_policy.total_s - waited_s))
        pause_s = min(2 * pause_s, retry_policy.longest_s)


def _store_message(error: Exception) -> str | None:
    """Return the part of an error that the object store wrote; None if the store is not what failed."""
    if isinstance(error, FileNotFoundError):
        return None
    for store in (_S3, _GCS, _AZURE):
        if found := store.search(str(error)):
            return str(error)[found.start() :]
    return brief(error) if isinstance(error, (ConnectionError, PermissionError, TimeoutError)) else None


def _is_transient(error: Exception, message: str) -> bool:
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    if found := _S3.match(message):
        return found[1] in _TRANSIENT or (found[2] is not None and _is_transient_status(int(found[2])))
    if found := _GCS.match(message):
        return found[1] in _TRANSIENT
    if found := _AZURE.match(message):
        return _is_transient_status(int(found[2] or 0))
    return False


def _is_transient_status(status: int) -> bool:
    # Zero or less: there was no response.
    return status <= 0 or status in (408, 429) or status >= 500


def _fix(message: str) -> str:
    if _NO_BUCKET.search(message):
        return "create the bucket or correct its name, and run the same command again"
    if _DENIED.search(message):
        return "check the credentials and their permissions there, and run the same command again"
    return "fix that and run the same command again"
