"""Metrics arranged for tables and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from caslie_ray.evaluation.answers.metrics import Scored
from caslie_ray.fusion import CONTEXT_FREE, SHUFFLED, VERDICT_ONLY
from caslie_ray.tasks import TASKS

__all__ = ["VARIANT_NAMES", "Results", "UsedShares"]

VARIANT_NAMES = {
    "text": "uniM³, text only",
    "uia": "CASLIE-UIA, use it always",
    "caslie": "CASLIE",
    SHUFFLED: "verdicts shuffled",
    VERDICT_ONLY: "verdicts without captions",
    CONTEXT_FREE: "without context",
    "task-specific": "task-specific",
    "base": "base without fine-tuning",
}
"""Display names of variants, in the order of tables."""

UsedShares = Mapping[tuple[str, str, str], float]
"""The share of captions used, by variant, task and split."""


class Results:
    """Metrics by model, variant and split.

    Args:
        scored: the cells.
        used: the share of captions used.
        left_out: number of samples that are not measured, by the task's code and split; see `Answers.left_out`.
        of_bits: what the verdicts alone predict; see `predictions_of_bits`.
    """

    def __init__(
        self,
        scored: Sequence[Scored],
        used: UsedShares,
        left_out: Mapping[str, Mapping[str, int]] | None = None,
        of_bits: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.used = used
        self.left_out = left_out or {}
        self.of_bits = of_bits or {}
        self.models = list(dict.fromkeys(one.cell.model for one in scored))
        place = {name: at for at, name in enumerate(VARIANT_NAMES)}
        found = {one.cell.variant for one in scored}
        self.variants = sorted(found, key=lambda name: (place.get(name, len(place)), name))
        self._cells = {one.cell: one for one in scored}

    def cells(self, model: str, variant: str, split: str) -> list[Scored]:
        """Return the cells of a variant in a split, in the paper's order of tasks."""
        order = list(TASKS)
        found = [
            one
            for cell, one in self._cells.items()
            if (cell.model, cell.variant, cell.split) == (model, variant, split)
        ]
        return sorted(found, key=lambda one: order.index(one.cell.task))

    def tasks(self, split: str) -> list[str]:
        """Return the codes of the tasks of a split, in the paper's order."""
        found = {cell.task for cell in self._cells if cell.split == split}
        return [task.code for name, task in TASKS.items() if name in found]

    def pair(self, model: str, one: str, other: str, split: str) -> tuple[list[Scored], list[Scored]]:
        """Return the cells of two variants, for the tasks that both have."""
        mine, its = self.cells(model, one, split), self.cells(model, other, split)
        both = {cell.cell.task for cell in mine} & {cell.cell.task for cell in its}
        return [c for c in mine if c.cell.task in both], [c for c in its if c.cell.task in both]
