"""How many replicas of a model, or training workers, run."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from caslie_ray.profiles._base import Positive, Settings

__all__ = ["Pool", "Workers"]


class Pool(Settings):
    """Number of replicas of a model; also written as `[1, 8]`, or as one number for both."""

    min: Positive = 1
    """Replicas that must be ready before work starts."""

    max: Positive | None = 1
    """Maximum replicas. null: as many as the cluster has or can grow to, if there is work for them. With
    `schedule: streamed` the captioner then takes what the other models leave, and every other model keeps `min`."""

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, given: object) -> object:
        if isinstance(given, int) and not isinstance(given, bool):
            return {"min": given, "max": given}
        if isinstance(given, (list, tuple)) and len(given) == 2:
            return {"min": given[0], "max": given[1]}
        return given

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.min > self.max:
            raise ValueError(f"min is {self.min} and max is {self.max}; min may not exceed max")
        return self


class Workers(Pool):
    """Number of training workers; elastic if `min` and `max` differ."""

    max: Positive = 1
    """Maximum workers."""
