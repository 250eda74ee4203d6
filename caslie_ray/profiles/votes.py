"""How captions come about and how votes on them are taken."""

from __future__ import annotations

from typing import Literal

from caslie_ray.profiles._base import Fraction, Positive, Settings

__all__ = ["CaptionSettings", "VoteSettings"]


class CaptionSettings(Settings):
    """Where captions come from (paper 4.1 and C.1)."""

    source: Literal["generated", "dataset"] = "generated"
    """`generated`: the captioner writes them. `dataset`: the data set's `caption_info` is taken as it is."""

    context: Literal["conditioned", "free"] = "conditioned"
    """`conditioned`: the prompt holds the sample's text (EC³). `free`: one prompt for all images (C.1)."""

    words: Positive | None = None
    """Words that the captioner is asked not to exceed, in a sentence behind its prompt; null asks for no length."""


class VoteSettings(Settings):
    """How a verdict is reached (paper 4.2)."""

    rule: Literal["majority", "always", "never"] = "majority"
    """`majority` of the voters, `always` use the caption (UIA), or `never` (text only)."""

    schedule: Literal["early", "full"] = "early"
    """`early`: no further calls once a majority is certain. `full`: every voter on every view."""

    audit: Fraction = 0.01
    """Share of views, drawn by id, on which all vote in spite of `early`: for yes rates and agreement."""
