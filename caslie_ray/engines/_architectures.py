"""Which inputs checkpoints take, by architecture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from caslie_ray.engines._checkpoints import resolve
from caslie_ray.engines.downloads import local_snapshot
from caslie_ray.engines.load_errors import LoadError
from caslie_ray.engines.revisions import pinned
from caslie_ray.engines.spec import EngineSpec

__all__ = ["IMAGE_ARCHITECTURES", "TEXT_ARCHITECTURE", "Architecture", "takes_instructions"]


class Architecture(NamedTuple):
    """The inputs of checkpoints of one architecture.

    Attributes:
        takes_images: a prompt may have an image, and a processor prepares it.
        takes_text_alone: a prompt may come without an image.
        has_chat_template: prompts are rendered in the checkpoint's chat template, and a checkpoint without one is
            refused. False for a captioner that continues plain text after the image.
    """

    takes_images: bool
    takes_text_alone: bool
    has_chat_template: bool


TEXT_ARCHITECTURE = Architecture(takes_images=False, takes_text_alone=True, has_chat_template=True)

_VISION_CHAT = Architecture(takes_images=True, takes_text_alone=True, has_chat_template=True)

IMAGE_ARCHITECTURES = {
    "mllama": _VISION_CHAT,
    "llava": _VISION_CHAT,
    "llava_next": _VISION_CHAT,
    "idefics3": _VISION_CHAT,
    "blip-2": Architecture(takes_images=True, takes_text_alone=False, has_chat_template=False),
}
"""By `model_type` of the configuration. Any other type is treated as a text model."""

_CAPTION_ONLY = ("blip", "blip-2")


def takes_instructions(spec: EngineSpec) -> bool:
    """Return whether a checkpoint follows a prompt; BLIP and BLIP-2 only describe the image (paper C.1).

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    found = resolve(spec.checkpoint)
    if found.gguf_file is not None:
        return True
    config = Path(found.location) / "config.json" if found.is_local else _hub_config(spec)
    if config is None or not config.is_file():
        return "blip" not in found.location.lower()
    return json.loads(config.read_text()).get("model_type") not in _CAPTION_ONLY


def _hub_config(spec: EngineSpec) -> Path | None:
    """Return the configuration file of a hub checkpoint; None if unavailable, which only matters on loading."""
    spec = pinned(spec)
    assert spec.revision is not None
    try:
        return local_snapshot(spec.checkpoint, spec.revision, weights=False) / "config.json"
    except LoadError:
        return None
