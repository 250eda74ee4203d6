"""Pins branches and tags of a profile's checkpoints to commits, once per run.

A branch moves, and answers are keyed by the commit of the model. So a run records the commit of each branch at first
use, and later jobs on the run use it: a resubmitted job continues its work, and needs no hub to find what is done.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from caslie_ray.engines.revisions import pinned
from caslie_ray.errors import EngineError
from caslie_ray.profiles import Model, Profile
from caslie_ray.roles import optional_names
from caslie_ray.storage.run import Run

__all__ = ["REVISIONS", "pin_profile"]

log = logging.getLogger(__name__)

REVISIONS = "revisions.json"
"""File of a run with the commits, by ``CHECKPOINT@REVISION``."""


def pin_profile(run: Run, profile: Profile, models: Iterable[Model], *, record: bool) -> Profile:
    """Return the profile with commits as the revisions of hub models.

    Commits come from the run, or else from the hub. With ``faults.missing_voter: quorum``, a voter that cannot be
    resolved is left unchanged, with a warning.

    Args:
        run: may have recorded commits.
        profile: the profile.
        models: the models of its lineup that will be used; the others are left unchanged.
        record: write new commits into the run.

    Raises:
        EngineError: a commit cannot be resolved, or a checkpoint does not exist.
    """
    known: dict[str, str] = run.read_json(REVISIONS) or {}
    optional = optional_names(profile)
    commits: dict[str, str] = {}
    fresh: dict[str, str] = {}
    for model in models:
        key = _key(model)
        if key in commits:
            continue
        try:
            commit = known.get(key) or pinned(model.spec()).revision
        except EngineError as error:
            if model.name not in optional:
                raise
            log.warning("%s: %s", model.name, error)
            continue
        if commit is None or commit == model.revision:  # local, or a commit already
            continue
        commits[key] = commit
        if key in known:
            log.info("%s is %s, as when this run first used it; set revision to change it", key, commit)
        else:
            fresh[key] = commit
    if fresh and record:
        run.write_json(REVISIONS, {**known, **fresh})
    return _with_commits(profile, commits)


def _key(model: Model) -> str:
    return f"{model.checkpoint}@{model.revision or ''}"


def _with_commits(profile: Profile, commits: Mapping[str, str]) -> Profile:
    if not commits:
        return profile

    def changed(model: Any) -> Any:
        commit = commits.get(_key(model))
        return model if commit is None else model.model_copy(update={"revision": commit})

    lineup = profile.lineup
    update = {
        "captioner": changed(lineup.captioner),
        "voters": tuple(map(changed, lineup.voters)),
        "base": changed(lineup.base),
    }
    return profile.model_copy(update={"lineup": lineup.model_copy(update=update)})
