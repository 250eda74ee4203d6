"""The generated data set that is used if no source is given."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from caslie_ray.profiles._base import Settings, Whole

__all__ = ["MiniatureSettings"]


class MiniatureSettings(Settings):
    """The data set of the miniature world that is generated if no source is given."""

    draw: bool = False
    """Generate it. Off in profiles for real data, so that a forgotten `--source` is an error."""

    seed: Whole = 0
    """Seed of the generator."""

    train: Whole = 60
    """Samples per task in the split train."""

    validation: Whole = 8
    """Samples per task in the split validation."""

    ind: Whole = 20
    """Samples per task in the split ind."""

    ood: Whole = 20
    """Samples per task in the split ood, which has five tasks."""

    shelf: int = Field(default=6, ge=6)
    """Products per category that PRP and SR share; each has one image."""

    combinations: Literal["all", "seen", "held_out"] = "all"
    """Combinations of category, colour and pattern: all, only those that the checkpoints were trained on, or only the
    others."""
