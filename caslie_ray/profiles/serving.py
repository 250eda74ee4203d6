"""How the composed application is served."""

from __future__ import annotations

from caslie_ray.profiles._base import Positive, Settings

__all__ = ["ServingSettings"]


class ServingSettings(Settings):
    """Size of the served application."""

    max_batch: Positive = 8
    """Requests that are answered together at most."""

    replicas: Positive = 1
    """Replicas of each model."""
