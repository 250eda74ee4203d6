"""Answers of models that cannot be started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from caslie_ray.engines import Choice, Failure, Generation, Request
from caslie_ray.roles import Role

__all__ = ["AbsentModels"]


@dataclass(frozen=True)
class AbsentModels:
    """An `Ask` that answers every request with a retryable failure.

    Attributes:
        reasons: why a model cannot answer, by name.
    """

    reasons: Mapping[str, str]

    def generate(self, role: Role, requests: Sequence[Request]) -> list[Generation]:
        failure = Failure(self.reasons[role.name], retryable=True)
        return [Generation(request.key, "", 0, 0, False, failure) for request in requests]

    def choose(self, role: Role, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        failure = Failure(self.reasons[role.name], retryable=True)
        return [Choice(request.key, (), 0, False, failure) for request in requests]
