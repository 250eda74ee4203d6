"""How the families of checkpoints differ, as far as an engine must know."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["IMAGE_FAMILIES", "TEXT_FAMILY", "Family"]


class Family(NamedTuple):
    """What a checkpoint of one architecture takes.

    Attributes:
        sees: an image may stand in the prompt, and a processor prepares it.
        reads: a prompt may come without an image.
        chat: prompts go through the checkpoint's chat template, and a checkpoint without one is refused.
            False for a captioner that continues plain text after the image and has no template by nature.
    """

    sees: bool
    reads: bool
    chat: bool


TEXT_FAMILY = Family(sees=False, reads=True, chat=True)

IMAGE_FAMILIES = {
    "mllama": Family(sees=True, reads=True, chat=True),
    "llava": Family(sees=True, reads=True, chat=True),
    "llava_next": Family(sees=True, reads=True, chat=True),
    "idefics3": Family(sees=True, reads=True, chat=True),
    "blip-2": Family(sees=True, reads=False, chat=False),
}
"""By `model_type` of a checkpoint's configuration. All others are taken for text models."""
