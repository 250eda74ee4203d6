"""Which questions are answered, and by which models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from caslie_ray.profiles._base import Listed, Settings

__all__ = ["PredictionSettings"]


class PredictionSettings(Settings):
    """What `predict` answers; the models are those that `training` names."""

    splits: Listed[Literal["train", "validation", "ind", "ood"]] = Field(default=("ind", "ood"), min_length=1)
    """Splits whose instructions are answered."""

    base: bool = False
    """The base answers too, as it is, the instructions of the first of `training.variants`."""
