"""What `evaluate` measures."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from caslie_ray.profiles._base import Listed, Positive, Settings, check_voter_sets

__all__ = ["EvaluationSettings"]


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
