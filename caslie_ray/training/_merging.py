"""Merges a trained adapter into its base, in a Ray task, and writes the checkpoint into the run."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import pyarrow.fs as pafs
import ray
from ray.exceptions import RayTaskError

from caslie_ray.storage.run import Run
from caslie_ray.training._export import merge_adapter
from caslie_ray.training._registry import MERGED
from caslie_ray.training._spec import TrainingSpec

__all__ = ["merge", "merged_digest"]

# Says which adapter was merged; written after the checkpoint.
_ABOUT = "adapter.json"


def merged_digest(run: Run, folder: str) -> str | None:
    """Return the digest of the adapter that is merged into its base; None if there is no complete checkpoint."""
    about = run.read_json(f"{folder}/{MERGED}/{_ABOUT}")
    return None if about is None else str(about["adapter"])


def merge(run: Run, spec: TrainingSpec, folder: str, kept: str, digest: str) -> None:
    """Merge an adapter into its base.

    Args:
        run: contains the model.
        spec: what was trained.
        folder: the model's folder, in the run.
        kept: the adapter: `best` or `last`.
        digest: hash of its weights.

    Raises:
        EngineError: the base cannot be loaded.
        RunError: the store refuses.
    """
    task = ray.remote(num_cpus=spec.settings.resources.cpus, max_retries=3)(_write_merged)
    try:
        ray.get(task.remote(run, spec, folder, kept))
    except RayTaskError as error:
        raise error.cause from error
    run.put(run.path(folder, MERGED, _ABOUT), json.dumps({"adapter": digest, "name": kept}).encode())


def _write_merged(run: Run, spec: TrainingSpec, folder: str, kept: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        adapter, merged = Path(temporary) / "adapter", Path(temporary) / MERGED
        adapter.mkdir()
        for info in run.listed(run.path(folder, kept)):
            (adapter / info.base_name).write_bytes(run.read_bytes(info.path))
        merge_adapter(spec.base_spec, adapter, merged)
        # Its settings last: a folder without them is no checkpoint.
        for file in sorted(merged.iterdir(), key=lambda file: file.name == "config.json"):
            target = run.path(folder, MERGED, file.name)
            run.with_retries("write", target, functools.partial(_copy, run, file, target))


def _copy(run: Run, file: Path, target: str) -> None:
    run.check_lease()
    run.fs.create_dir(target.rpartition("/")[0], recursive=True)
    pafs.copy_files(str(file), target, source_filesystem=pafs.LocalFileSystem(), destination_filesystem=run.fs)
