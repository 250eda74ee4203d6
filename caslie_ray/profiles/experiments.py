"""Experiments beside the method itself; each adds models, and reuses every table it can."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from caslie_ray.profiles._base import Listed, Settings, check_voter_sets

__all__ = ["ExperimentSettings"]


class ExperimentSettings(Settings):
    """What is trained, answered and measured besides `training.variants`."""

    shuffled: bool = False
    """A control: as many captions as the verdicts choose, chosen at random. What it gains, choosing did not earn."""

    verdict_only: bool = False
    """A control: a bare mark in the place of each caption that won. Its gain is that of the verdicts without the
    captions."""

    task_specific: bool = False
    """A model for each task alone (Table 5)."""

    context_free: bool = False
    """Captions written without their context (C.1), voted on alike (Table A3)."""

    voter_sets: Listed[Listed[str]] = ()
    """Majorities of these voters, a model each (Table A4). Wants `votes.schedule=full`: every voter on every view."""

    @model_validator(mode="after")
    def _odd(self) -> Self:
        check_voter_sets(self.voter_sets)
        return self
