"""Where captions come from."""

from __future__ import annotations

from typing import Literal

from caslie_ray.profiles._base import Positive, Settings

__all__ = ["CaptionSettings"]


class CaptionSettings(Settings):
    """Where captions come from (paper 4.1 and C.1)."""

    source: Literal["generated", "dataset"] = "generated"
    """`generated`: the captioner writes them. `dataset`: the data set's `caption_info` is taken as it is."""

    context: Literal["conditioned", "free"] = "conditioned"
    """`conditioned`: the prompt holds the sample's text (EC³). `free`: one prompt for all images (C.1)."""

    words: Positive | None = None
    """Words that the captioner is asked not to exceed, in a sentence behind its prompt; null asks for no length."""
