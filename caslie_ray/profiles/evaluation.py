"""What is measured, and the drawn data set that it is measured on."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from caslie_ray.profiles._base import Listed, Positive, Settings, Whole, check_voter_sets

__all__ = ["EvaluationSettings", "MiniatureSettings"]


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


class EvaluationSettings(Settings):
    """What `evaluate` measures."""

    truth: str | None = None
    """Folder with the truth of a drawn data set. Null: the run's own `source/truth`, if it is there."""

    voter_sets: Listed[Listed[str]] = ()
    """Voters whose majority is measured beside the lineup's (Table A4): an odd number, all of the lineup."""

    context_free: bool = False
    """Where the truth is known, also caption without context (C.1), in `RUN/context_free`, and compare."""

    resamples: Positive = 1000
    """Bootstrap resamples, of images, for the 95% intervals."""

    page_views: Positive = 5000
    """Views on the page, the worst first. Each distinct picture takes some 3 kB."""

    @model_validator(mode="after")
    def _odd(self) -> Self:
        check_voter_sets(self.voter_sets)
        return self
