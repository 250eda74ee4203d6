"""Requests to the model hub: a bounded number of retries, and errors that name the checkpoint and the mend."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from caslie_ray.engines.load_errors import LoadError, LoadFailure, causes, classify

__all__ = ["explained", "patiently"]

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

PAUSES_S = (1.0, 2.0, 4.0)
"""Seconds to wait between tries; the hub's own Retry-After goes before, where it is longer."""

LONGEST_PAUSE_S = 300.0
"""The hub counts requests over five minutes."""


def patiently(
    call: Callable[[], Answer], checkpoint: str, revision: str | None, pauses_s: Sequence[float] | None = None
) -> Answer:
    """Make a request to the hub; one that may succeed later is tried again, a bounded number of times.

    Args:
        call: makes the request.
        checkpoint: a hub id, for messages.
        revision: branch, tag or commit; None for the default branch.
        pauses_s: seconds between tries; None for `PAUSES_S`.

    Raises:
        LoadError: the hub refuses, or still fails on the last try.
    """
    pauses_s = PAUSES_S if pauses_s is None else pauses_s
    for pause in pauses_s:
        try:
            return call()
        except Exception as error:  # The hub's client raises types of several packages.
            failure = explained(error, checkpoint, revision)
            if failure.kind != "retry":
                raise LoadError(failure) from error
            wait = min(max(pause, _retry_after(error)), LONGEST_PAUSE_S)
            log.warning("%s; next try in %g s", failure.reason, wait)
            time.sleep(wait)
    try:
        return call()
    except Exception as error:
        failure = explained(error, checkpoint, revision)
        if failure.kind == "retry":
            failure = replace(failure, reason=f"{failure.reason}, in {len(pauses_s) + 1} tries")
        raise LoadError(failure) from error


def explained(error: BaseException, checkpoint: str, revision: str | None) -> LoadFailure:
    """Classify an error of the hub's client, with a reason that names the checkpoint.

    Args:
        error: what was raised.
        checkpoint: a hub id.
        revision: branch, tag or commit; None for the default branch.
    """
    from huggingface_hub import constants, errors, get_token  # slow to import, and only a hub id needs it

    chain = list(causes(error))
    failure = next((link.failure for link in chain if isinstance(link, LoadError)), None)
    if failure is not None:
        return failure
    failure = classify(error)
    answer = next((link for link in chain if isinstance(link, errors.HfHubHTTPError)), None)
    if answer is not None:
        reason, mend = _answered(answer, checkpoint, revision, constants.ENDPOINT, known=get_token() is not None)
        return replace(failure, reason=reason, mend=mend or failure.mend)
    if any(isinstance(link, errors.OfflineModeIsEnabled) for link in chain):
        at = f"{checkpoint} at revision {revision or constants.DEFAULT_REVISION}"
        return replace(failure, reason=f"{at} is not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set")
    if failure.kind == "retry":
        last = chain[-1]
        return replace(
            failure,
            reason=f"the hub ({constants.ENDPOINT}) cannot be reached for {checkpoint}: {type(last).__name__}: {last}",
        )
    return replace(failure, reason=f"{checkpoint}: {failure.reason}")


def _answered(
    error: Any, checkpoint: str, revision: str | None, endpoint: str, *, known: bool
) -> tuple[str, str | None]:
    """The reason, and a mend that is more precise than that of the class of errors."""
    from huggingface_hub import errors

    status = error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        page = f"{endpoint}/{checkpoint}"
        return f"{checkpoint} is gated", f"accept its licence at {page} and set HF_TOKEN on every node"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{checkpoint} has no revision {revision}", None
    if isinstance(error, errors.RepositoryNotFoundError):
        who = "that HF_TOKEN may read" if known else "that is public, and HF_TOKEN is not set"
        return f"the hub has no repository {checkpoint} {who} ({status})", None
    if status == 401:
        return f"the hub refuses the HF_TOKEN that is sent for {checkpoint} (401)", None
    if status == 403:
        return f"the HF_TOKEN that is sent may not read {checkpoint} (403)", None
    if status == 429:
        return f"the hub limits requests (429) and does not give {checkpoint}", None
    return f"the hub does not give {checkpoint} ({status})", None


def _retry_after(error: BaseException) -> float:
    """Seconds that the hub asks to wait; 0 where it asks for none."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    for link in causes(error):
        headers = getattr(getattr(link, "response", None), "headers", None)
        if headers is None:
            continue
        limit = parse_ratelimit_headers(headers)
        if limit is not None and limit.remaining == 0:
            return float(limit.reset_in_seconds)
        value = str(headers.get("retry-after", ""))
        return float(value) if value.isdigit() else 0.0
    return 0.0
