"""What `evaluate` measures."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from caslie_ray.profiles._base import Listed, Positive, Settings, check_voter_sets

__all__ = ["EvaluationSettings"]


class EvaluationSettings(Settings):
    """What `evaluate` measures."""

    truth: str | None = None
    """Folder with the ground truth of a generated data set. Null: the run's own `source/truth`, if it exists."""

    voter_sets: Listed[Listed[str]] = ()
    """Sets of voters whose majority is also measured (Table A4): an odd number each, all from the lineup."""

    context_free: bool = False
    """If the ground truth is known, also caption without context (C.1), in `RUN/context_free`, and compare."""

    resamples: Positive = 1000
    """Bootstrap resamples, of images, for the 95% intervals."""

    page_views: Positive = 5000
    """Views on the page, the worst first. Each distinct image takes about 3 kB."""

    @model_validator(mode="after")
    def _odd(self) -> Self:
        check_voter_sets(self.voter_sets)
        return self
