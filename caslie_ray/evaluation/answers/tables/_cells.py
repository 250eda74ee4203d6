"""Cells that tables share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from caslie_ray.evaluation.answers.metrics import Scored
from caslie_ray.evaluation.answers.reading import describe_left_out
from caslie_ray.intervals import Interval
from caslie_ray.tasks import TASKS

__all__ = [
    "OURS", "PAPERS", "SPLIT_TITLES", "blank", "by_task", "codes", "improvement", "left_out_note", "percent", "short",
    "signed", "with_interval",
]  # fmt: skip

SPLIT_TITLES = {"ind": "IND", "ood": "OOD"}
OURS, PAPERS = "ours", "paper"


def codes() -> tuple[str, ...]:
    """Return the codes of all tasks, in the paper's order."""
    return tuple(task.code for task in TASKS.values())


def by_task(cells: Sequence[Scored]) -> list[str]:
    """Return the primary metric per task, with a dash for tasks that are not measured."""
    found = {one.task.code: one for one in cells}
    return [short(found[code].primary.value) if code in found else "–" for code in codes()]


def blank() -> list[str]:
    """Return an empty cell per task."""
    return [""] * len(codes())


def improvement(mine: Sequence[float], its: Sequence[float]) -> float | None:
    """Return the mean of relative gains, as the paper compares models (section 6).

    Pairs in which the other value is 0 have no relative gain and are left out; None if no pair is left.
    """
    gains = [one / other - 1 for one, other in zip(mine, its, strict=True) if other > 0]
    return float(np.mean(gains)) if gains else None


def percent(mine: Sequence[Scored], its: Sequence[Scored]) -> str:
    """Return the mean improvement of primary metrics, such as ``+4.1%``."""
    gain = improvement([one.primary.value for one in mine], [one.primary.value for one in its])
    return "–" if gain is None else f"{100 * gain:+.1f}%"


def with_interval(found: Interval, places: int = 3) -> str:
    """Return a value with its interval, such as ``0.512 [0.480, 0.544]``."""
    return f"{found.value:.{places}f} [{found.low:.{places}f}, {found.high:.{places}f}]"


def signed(found: Interval) -> str:
    """Return a difference with its interval."""
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def short(value: float | None) -> str:
    """Return a figure of a table; a dash if there is none."""
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def left_out_note(left_out: Mapping[str, Mapping[str, int]]) -> str:
    """Return the note on samples that are not measured; empty if there are none."""
    if not left_out:
        return ""
    return (
        f"Samples left out because their true answer is none of their options or labels: {describe_left_out(left_out)}."
    )
