"""Contexts of a catalogue: what captions are written for."""

from __future__ import annotations

from pydantic import field_validator

from caslie_ray.profiles._base import Settings

__all__ = ["ContextSettings"]


class ContextSettings(Settings):
    """What captions of a catalogue are written for. `product`, `alt_text` and `search` have prompts already."""

    caption: str | None = None
    """Prompt of the captioner, with columns of the source in double braces: `"… {{title}} … {{category}}"`."""

    quality: str | None = None
    """Prompt of the voters, which has `{{caption}}` once, and asks for yes or no."""

    images: str | int = "first"
    """Which images of a product are captioned: `first`, `all`, or at most this number."""

    @field_validator("images")
    @classmethod
    def _is_a_number_of_images(cls, images: str | int) -> str | int:
        if images not in ("first", "all") and not (isinstance(images, int) and images >= 1):
            raise ValueError("should be first, all, or a number of at least 1")
        return images

    @property
    def most_images(self) -> int | None:
        """Maximum images of a product; None for all."""
        return self.images if isinstance(self.images, int) else {"first": 1, "all": None}[self.images]
