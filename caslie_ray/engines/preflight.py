"""A checkpoint's settings, read before machines are started for it: what can never work ends the job at once."""

from __future__ import annotations

from pathlib import Path

from caslie_ray.engines.checkpoints import MINIATURE, SMOLLM2, CheckpointError, resolve
from caslie_ray.engines.choosing import AUTO
from caslie_ray.engines.downloads import has_weights
from caslie_ray.engines.registry import ENGINES
from caslie_ray.engines.revisions import pinned
from caslie_ray.engines.spec import EngineSpec

__all__ = ["preflight"]


def preflight(spec: EngineSpec) -> None:
    """Check that a checkpoint can be loaded, as far as its settings show; its weights are not read.

    It is reachable, has safetensors weights and a chat template, is of a supported architecture, and its context
    suffices. The checkpoints that come with this package are not looked at, and nothing is known of what an engine
    of the user's own needs.

    Raises:
        CheckpointError: there is no such checkpoint, or it cannot be read.
        EngineError: it can be read, but not run; the message says what to do.
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
    from caslie_ray.engines._reader import read_settings  # imports torch, which takes seconds

    read_settings(spec)


def _has_weights(spec: EngineSpec) -> bool:
    found = resolve(spec.checkpoint)
    if found.gguf_file is not None:
        return True
    if found.is_local:
        return any(Path(found.location).glob("*.safetensors"))
    assert spec.revision is not None
    return has_weights(found.location, spec.revision)
