"""Settings of a model that has the GPUs to itself."""

from __future__ import annotations

from pydantic import Field

from caslie_ray.profiles._base import Positive, Settings

__all__ = ["Alone"]


class Alone(Settings):
    """Overrides for a model that has the GPUs to itself: in `schedule: staged`, and in `predict`. null: no override."""

    batch_size: Positive | None = None
    """As `batch_size` of the model."""

    batch_tokens: Positive | None = None
    """As `batch_tokens` of the model."""

    cpus: float | None = Field(default=None, ge=0.0)
    """As `resources.cpus`."""

    gpus: float | None = Field(default=None, ge=0.0)
    """As `resources.gpus`: 1 gives each replica a whole GPU."""

    memory_gib: float | None = Field(default=None, ge=0.0)
    """As `resources.memory_gib`."""
