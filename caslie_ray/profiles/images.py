"""Limits on fetching and decoding product images."""

from __future__ import annotations

from pydantic import Field

from caslie_ray.profiles._base import Positive, Seconds, Settings, Whole

__all__ = ["ImageSettings"]


class ImageSettings(Settings):
    """What an image may cost to fetch and decode, and how large it is stored."""

    max_side: int = Field(default=500, ge=1, le=500)
    """Longest side of a stored image in pixels; larger ones are scaled down."""

    max_pixels: Positive = 50_000_000
    """Pixels of a source image at most, read from its header before it is decoded; more is a reject."""

    max_bytes: Positive = 20_000_000
    """Bytes of a source file at most; more is a reject."""

    connect_timeout_s: Seconds = 5.0
    """Seconds to reach a server."""

    timeout_s: Seconds = 20.0
    """Seconds for one whole download, each try on its own."""

    retries: Whole = 3
    """Further tries after one that failed for a passing reason, with growing pauses between."""

    concurrency: Positive = 16
    """Downloads at once in one worker."""

    allow_private: bool = False
    """Whether URLs may lead to private, loopback or link-local addresses."""

    root: str | None = None
    """Folder or URI that relative references start from; null takes the folder of the source file."""
