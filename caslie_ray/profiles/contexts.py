"""Contexts of a catalogue: what captions are written for."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from caslie_ray.profiles._base import Settings

__all__ = ["ContextSettings"]


class ContextSettings(Settings):
    """What captions of a catalogue are written for. `product`, `alt_text` and `search` have prompts already."""

    caption: str | None = None
    """Prompt of the captioner, with columns of the source in double braces: `"… {{title}} … {{category}}"`."""

    quality: str | None = None
    """Prompt of the voters, which has `{{caption}}` once, and asks for yes or no."""

    images: Literal["first", "all"] | int = Field(default="first", union_mode="left_to_right")
    """Which images of a product are captioned: `first`, `all`, or at most this number."""
