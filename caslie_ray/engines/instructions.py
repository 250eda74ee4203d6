"""Which checkpoints follow instructions, told from their settings without loading them."""

from __future__ import annotations

import json
from pathlib import Path

from caslie_ray.engines.checkpoints import resolve
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
    config = Path(found.location) / "config.json" if found.is_local else _cached(found.location, spec.revision)
    if config is None or not config.is_file():
        return "blip" not in found.location.lower()
    return json.loads(config.read_text()).get("model_type") not in _CAPTION_ONLY


def _cached(model: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache  # slow to import, and only a hub id needs it

    path = try_to_load_from_cache(model, "config.json", revision=revision)
    return Path(path) if isinstance(path, str) else None
