"""The generated data set that is used if no source is given."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from caslie_ray.profiles._base import Settings, Whole

__all__ = ["MiniatureSettings"]


class MiniatureSettings(Settings):
    """The data set of the miniature world that is drawn where no source is given."""

    draw: bool = False
    """Draw it. Profiles for real data leave this off, so that a forgotten `--source` is an error."""

    seed: Whole = 0
    """Another seed draws another data set of the same kind."""

    train: Whole = 60
    """Samples a task in the split train; likewise the others."""

    validation: Whole = 8
    """Samples a task in the split validation."""

    ind: Whole = 20
    """Samples a task in the split ind."""

    ood: Whole = 20
    """Samples in the split ood, of each of its five tasks."""

    shelf: int = Field(default=6, ge=6)
    """Products a category that PRP and SR share; each has one picture."""

    combinations: Literal["all", "seen", "held_out"] = "all"
    """Combinations of category, colour and pattern: all, those that the checkpoints were trained on, or the others."""
