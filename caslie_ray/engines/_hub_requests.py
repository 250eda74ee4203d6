"""Requests to the model hub: bounded retries, and errors that name the checkpoint and what to do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from caslie_ray.engines.load_errors import LoadError, LoadFailure, causes, classify

__all__ = ["explain", "with_retries"]

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

PAUSES_S = (1.0, 2.0, 4.0)
"""Seconds between tries; a longer Retry-After of the hub takes precedence."""

LONGEST_PAUSE_S = 300.0
"""The hub's rate limits cover windows of five minutes."""


def with_retries(
    call: Callable[[], Answer], checkpoint: str, revision: str | None, pauses_s: Sequence[float] | None = None
) -> Answer:
    """Make a request to the hub; retry errors that may pass, a bounded number of times.

    Args:
        call: makes the request.
        checkpoint: a hub id, for messages.
        revision: branch, tag or commit; None for the default branch.
        pauses_s: seconds between tries; None for `PAUSES_S`.

    Raises:
        LoadError: the hub refuses, or the last try failed.
    """
    pauses_s = PAUSES_S if pauses_s is None else pauses_s
    for pause in pauses_s:
        try:
            return call()
        except Exception as error:  # the hub's client raises types of several packages
            failure = explain(error, checkpoint, revision)
            if failure.kind != "retry":
                raise LoadError(failure) from error
            wait = min(max(pause, _retry_after(error)), LONGEST_PAUSE_S)
            log.warning("%s; next try in %g s", failure.reason, wait)
            time.sleep(wait)
    try:
        return call()
    except Exception as error:
        failure = explain(error, checkpoint, revision)
        if failure.kind == "retry":
            failure = replace(failure, reason=f"{failure.reason}, in {len(pauses_s) + 1} tries")
        raise LoadError(failure) from error


def explain(error: BaseException, checkpoint: str, revision: str | None) -> LoadFailure:
    """Classify an error of the hub's client and name the checkpoint in its reason.

    Args:
        error: the exception.
        checkpoint: a hub id.
        revision: branch, tag or commit; None for the default branch.
    """
    from huggingface_hub import constants, errors, get_token  # slow to import, and only a hub id needs it

    chain = list(causes(error))
    failure = next((link.failure for link in chain if isinstance(link, LoadError)), None)
    if failure is not None:
        return failure
    failure = classify(error)
    response = next((link for link in chain if isinstance(link, errors.HfHubHTTPError)), None)
    if response is not None:
        reason, mend = _explain_response(
            response, checkpoint, revision, constants.ENDPOINT, has_token=get_token() is not None
        )
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


def _explain_response(
    error: Any, checkpoint: str, revision: str | None, endpoint: str, *, has_token: bool
) -> tuple[str, str | None]:
    """Return the reason and, if it can be more precise than the error's class, what to do."""
    from huggingface_hub import errors

    status = error.response.status_code
    if isinstance(error, errors.GatedRepoError):
        page = f"{endpoint}/{checkpoint}"
        return f"{checkpoint} is gated", f"accept its licence at {page} and set HF_TOKEN on every node"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{checkpoint} has no revision {revision}", None
    if isinstance(error, errors.RepositoryNotFoundError):
        who = "that HF_TOKEN may read" if has_token else "that is public, and HF_TOKEN is not set"
        return f"the hub has no repository {checkpoint} {who} ({status})", None
    if status == 401:
        return f"the hub refuses the HF_TOKEN that is sent for {checkpoint} (401)", None
    if status == 403:
        return f"the HF_TOKEN that is sent may not read {checkpoint} (403)", None
    if status == 429:
        return f"the hub limits requests (429) and does not give {checkpoint}", None
    return f"the hub does not give {checkpoint} ({status})", None


def _retry_after(error: BaseException) -> float:
    """Return the seconds that the hub asks to wait, or 0."""
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
