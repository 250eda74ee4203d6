"""The lineup: which checkpoint, on which engine, is captioner, voter and uniM³ base."""

from __future__ import annotations

from collections import Counter
from typing import Self

from pydantic import model_validator

from caslie_ray.profiles._base import Listed, Settings
from caslie_ray.profiles.model import Captioner, Model

__all__ = ["Lineup"]


class Lineup(Settings):
    """The captioner, the voters and the uniM³ base."""

    captioner: Captioner
    """The EC³ model that writes the captions (paper 4.1)."""

    voters: Listed[Model]
    """The CQE models that vote on a caption (paper 4.2): an odd number, with distinct names."""

    base: Model
    """The language model that is fine-tuned into uniM³ (paper 4.3)."""

    @model_validator(mode="after")
    def _votes_decide(self) -> Self:
        names = [voter.name for voter in self.voters]
        if self.voters and len(self.voters) % 2 == 0:
            raise ValueError(
                f"voters are {len(names)} ({', '.join(names)}); a majority needs an odd number, such as 1, 3, 5 or 7"
            )
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise ValueError(f"voters {', '.join(twice)} occur twice; each voter needs its own name")
        costs = {voter.cost is None for voter in self.voters}
        if len(costs) > 1:
            missing = ", ".join(voter.name for voter in self.voters if voter.cost is None)
            raise ValueError(f"voters {missing} have no cost but others do; give all of them a cost, or none")
        return self

    @model_validator(mode="after")
    def _one_pool_agrees(self) -> Self:
        free = {"name", "cost", "max_new_tokens"}  # a vote generates no text
        captioner = self.captioner.model_dump(exclude=free)
        for voter in self.voters:
            if not voter.shares_pool(self.captioner):
                continue
            differing = [key for key, value in voter.model_dump(exclude=free).items() if value != captioner[key]]
            if differing:
                raise ValueError(
                    f"the captioner and voter {voter.name} share the checkpoint {voter.checkpoint} "
                    f"and so one pool, but differ in {', '.join(differing)}; set both alike"
                )
        return self
