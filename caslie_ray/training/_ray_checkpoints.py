"""Ray Train's checkpoints in a run: where they are, whether Ray Train would accept them, and their removal."""

from __future__ import annotations

import json
import logging
from typing import Any

import ray
from pyarrow.fs import FileType

from caslie_ray.storage.damaged_files import keep_folder
from caslie_ray.storage.run import Run
from caslie_ray.training._spec import MODELS, TrainingSpec

__all__ = ["checkpoints_folder", "delete_checkpoints", "discard_if_broken"]

log = logging.getLogger(__name__)

# Where Ray Train 2.60 records which checkpoints exist.
_SNAPSHOT = "checkpoint_manager_snapshot.json"


def checkpoints_folder(spec: TrainingSpec) -> str:
    """Return the folder, in the run, of the checkpoints of models with this base and these settings.

    It does not depend on the models of a job, so that the one that was started is resumed whatever is trained now.
    """
    return f"{MODELS}/checkpoints-{spec.key('')[:12]}"


def discard_if_broken(run: Run, folder: str) -> None:
    """Delete checkpoints that Ray Train would refuse: a writer died while writing or deleting, or Ray was upgraded.

    A copy is kept in the run's folder `damaged`: training was paid for.

    Raises:
        RunError: the store refuses.
    """
    snapshot = run.path(folder, _SNAPSHOT)
    if run.info([snapshot])[0].type == FileType.NotFound:
        return
    text = run.read_bytes(snapshot)
    try:
        usable = _is_usable(run, folder, json.loads(text))
    except (ValueError, KeyError, TypeError):
        usable = False
    if usable:
        return
    kept = keep_folder(run, folder)
    log.warning(
        "the checkpoints in %s are damaged or of another version of Ray: the model is trained from its start; a copy is"
        " in %s", run.below(folder).label, kept,
    )  # fmt: skip
    delete_checkpoints(run, folder)


def _is_usable(run: Run, folder: str, snapshot: Any) -> bool:
    names = [result["checkpoint_dir_name"] for result in snapshot["checkpoint_results"]]
    found = run.info([run.path(folder, name, "state.json") for name in names]) if names else []
    return snapshot["ray_version"] == ray.__version__ and all(info.type == FileType.File for info in found)


def delete_checkpoints(run: Run, folder: str) -> None:
    """Delete checkpoints, the record of them first.

    Raises:
        RunError: the store refuses.
    """
    run.delete([run.path(folder, _SNAPSHOT)])
    run.delete_folder(run.path(folder))
