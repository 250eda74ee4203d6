"""Where captions come from."""

from __future__ import annotations

from typing import Literal

from caslie_ray.profiles._base import Positive, Settings

__all__ = ["CaptionSettings"]


class CaptionSettings(Settings):
    """Where captions come from (paper 4.1 and C.1)."""

    source: Literal["generated", "dataset"] = "generated"
    """`generated`: the captioner writes them. `dataset`: the data set's `caption_info` is used."""

    context: Literal["conditioned", "free"] = "conditioned"
    """`conditioned`: the prompt contains the sample's text (EC³). `free`: one prompt for all images (C.1)."""

    words: Positive | None = None
    """Maximum words that a sentence after the caption prompt asks for; null: the prompt names no length."""
