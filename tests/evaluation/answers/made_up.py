"""Made-up answers."""

from __future__ import annotations

import random
from typing import NamedTuple

from caslie_ray.evaluation.answers.outcomes import FAILED, Cell, Outcomes
from caslie_ray.tasks import find_task

__all__ = ["Given", "answered", "cell"]


class Given(NamedTuple):
    """Answers to a task: the true label of each, and the answered one."""

    code: str
    truth: list[str]
    answers: list[str]

    @property
    def outcomes(self) -> Outcomes:
        return Outcomes.of(find_task(self.code), self.truth, self.answers)


def answered(code: str, right: float, failed: float = 0.1, count: int = 200, seed: int = 0) -> Given:
    """Answers to a task of which a share is right."""
    rng = random.Random(seed)
    labels = find_task(code).labels or tuple("uvwxyz")
    truth = [rng.choice(labels) for _ in range(count)]
    chance = random.Random(seed + 1)
    answers = []
    for true in truth:
        wrong = FAILED if chance.random() < failed else chance.choice([label for label in labels if label != true])
        answers.append(true if chance.random() < right else wrong)
    return Given(code, truth, answers)


def cell(code: str, variant: str = "caslie", split: str = "ind") -> Cell:
    return Cell("base", variant, find_task(code).name, split)
