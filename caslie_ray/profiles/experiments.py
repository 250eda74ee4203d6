"""Experiments in addition to the method; each adds models, and reuses every table it can."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from caslie_ray.profiles._base import Listed, Settings, check_voter_sets

__all__ = ["ExperimentSettings"]


class ExperimentSettings(Settings):
    """What is trained, answered and measured in addition to `training.variants`."""

    shuffled: bool = False
    """A control: as many captions as the verdicts choose, drawn at random. Its gain is not due to the verdicts."""

    verdict_only: bool = False
    """A control: a bare mark instead of each caption that won. Its gain is that of the verdicts without captions."""

    task_specific: bool = False
    """A model per task (Table 5)."""

    context_free: bool = False
    """Captions without context (C.1), with votes (Table A3)."""

    voter_sets: Listed[Listed[str]] = ()
    """A model per set of voters, by its majority (Table A4). Needs `votes.schedule=full`: all voters on all views."""

    @model_validator(mode="after")
    def _odd(self) -> Self:
        check_voter_sets(self.voter_sets)
        return self
