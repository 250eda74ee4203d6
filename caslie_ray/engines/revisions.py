"""Resolves branches and tags of the hub to commits."""

from __future__ import annotations

import functools
import logging
import re
from dataclasses import replace
from typing import Any

from caslie_ray.engines._checkpoints import resolve
from caslie_ray.engines._hub_requests import with_retries
from caslie_ray.engines.load_errors import LoadError, LoadFailure
from caslie_ray.engines.spec import EngineSpec

__all__ = ["pinned"]

log = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_TIMEOUT_S = 10.0


def pinned(spec: EngineSpec) -> EngineSpec:
    """Return the spec with its revision resolved to a commit, if its checkpoint is a hub id.

    Branches and tags are looked up on the hub, once per process; if it cannot be reached, the commit in the local cache
    is used.

    Raises:
        CheckpointError: there is no such checkpoint.
        LoadError: there is no such repository or revision, or neither hub nor cache has its commit.
    """
    found = resolve(spec.checkpoint)
    if found.is_local or (spec.revision is not None and _COMMIT.fullmatch(spec.revision)):
        return spec
    return replace(spec, revision=_commit(found.location, spec.revision))


@functools.cache
def _commit(model: str, revision: str | None) -> str:
    from huggingface_hub import HfApi, constants  # slow to import, and only needed for a branch
    from huggingface_hub.errors import RevisionResolutionError

    class RetryingApi(HfApi):
        def repo_info(self, *args: Any, **kwargs: Any) -> Any:
            repo_info = super().repo_info
            return with_retries(lambda: repo_info(*args, **kwargs, timeout=_TIMEOUT_S), model, revision)

    name = revision or constants.DEFAULT_REVISION
    try:
        commit = RetryingApi().resolve_revision(model, revision=revision).resolved
    except LoadError as error:
        if error.failure.kind == "final":
            raise
        try:
            commit = HfApi().resolve_revision(model, revision=revision, local_files_only=True).resolved
        except RevisionResolutionError:
            raise LoadError(_unknown(model, name, error.failure)) from error
        log.warning("%s; using %s, which revision %s had at the last look-up", error, commit, name)
    log.warning("revision %s of %s may move, and answers would change with it: pin revision: %s", name, model, commit)
    return commit


def _unknown(model: str, revision: str, failure: LoadFailure) -> LoadFailure:
    mend = f"set a commit as `revision`, set HF_HUB_OFFLINE=0, or download it first: hf download {model}"
    return LoadFailure(failure.kind, f"the commit of revision {revision} is not known: {failure.reason}", mend)
