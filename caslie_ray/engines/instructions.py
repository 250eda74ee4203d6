"""Which checkpoints follow instructions, by their settings."""

from __future__ import annotations

import json
from pathlib import Path

from caslie_ray.engines.checkpoints import resolve
from caslie_ray.engines.downloads import local_snapshot
from caslie_ray.engines.load_errors import LoadError
from caslie_ray.engines.revisions import pinned
from caslie_ray.engines.spec import EngineSpec

__all__ = ["takes_instructions"]

_CAPTION_ONLY = ("blip", "blip-2")


def takes_instructions(spec: EngineSpec) -> bool:
    """Whether a checkpoint reads a prompt; BLIP and BLIP-2 only caption what they see (paper C.1).

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    found = resolve(spec.checkpoint)
    if found.gguf_file is not None:
        return True
    config = Path(found.location) / "config.json" if found.is_local else _of_hub(spec)
    if config is None or not config.is_file():
        return "blip" not in found.location.lower()
    return json.loads(config.read_text()).get("model_type") not in _CAPTION_ONLY


def _of_hub(spec: EngineSpec) -> Path | None:
    """The configuration of a hub checkpoint; None where it cannot be had, which matters only once it is loaded."""
    spec = pinned(spec)
    assert spec.revision is not None
    try:
        return local_snapshot(spec.checkpoint, spec.revision, weights=False) / "config.json"
    except LoadError:
        return None
