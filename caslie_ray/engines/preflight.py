"""Checks checkpoints on the driver, so that what can never work fails before machines are started for it."""

from __future__ import annotations

from pathlib import Path

from caslie_ray.engines._checkpoints import MINIATURE, SMOLLM2, CheckpointError, resolve
from caslie_ray.engines.downloads import has_weights
from caslie_ray.engines.registry import ENGINES
from caslie_ray.engines.revisions import pinned
from caslie_ray.engines.selection import AUTO
from caslie_ray.engines.spec import EngineSpec

__all__ = ["preflight"]


def preflight(spec: EngineSpec) -> None:
    """Check that a checkpoint can be loaded, without reading its weights.

    Checked: it is reachable, has safetensors weights and a chat template, its architecture is supported, and its
    context is long enough. Not checked: checkpoints that come with this package, and user-defined engines.

    Raises:
        CheckpointError: there is no such checkpoint, or it cannot be read.
        EngineError: it can be read but not run; the message says what to do.
    """
    shipped = spec.checkpoint.startswith(MINIATURE) or spec.checkpoint == SMOLLM2
    if shipped or spec.engine not in (*ENGINES, AUTO):
        return
    spec = pinned(spec)
    if not _has_weights(spec):
        raise CheckpointError(
            f"checkpoint {spec.checkpoint} has no safetensors weights; choose one that has, or convert it: pickled"
            " weights are never read"
        )
    from caslie_ray.engines._preprocessor import read_preprocessor  # imports torch, which takes seconds

    read_preprocessor(spec)


def _has_weights(spec: EngineSpec) -> bool:
    found = resolve(spec.checkpoint)
    if found.gguf_file is not None:
        return True
    if found.is_local:
        return any(Path(found.location).glob("*.safetensors"))
    assert spec.revision is not None
    return has_weights(found.location, spec.revision)
