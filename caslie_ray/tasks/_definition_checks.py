"""Validates task definitions at import, before captions and training are paid for."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from caslie_ray.prompts import CAPTION
from caslie_ray.tasks.metrics import Confusion

if TYPE_CHECKING:
    from caslie_ray.tasks._task import Task

__all__ = ["check_definition", "check_distinct", "name_key"]

_MARK = "{{" + CAPTION + "}}"


def check_definition(task: Task, slots: Collection[str] | None) -> None:
    """Check the names, templates, cues and metrics of one task.

    Args:
        task: the task.
        slots: the slots of its templates; None if the task overrides `slots`.

    Raises:
        ValueError: it is inconsistent.
    """
    for what, name in (("name", task.name), ("code", task.code)):
        if not re.fullmatch(r"[\w-]+", name):
            raise ValueError(
                f"{what} {name!r} of a task names folders and columns: use letters, digits, hyphens and underscores"
            )
    if set(task.cues) != set(task.labels):
        raise ValueError(
            f"task {task.code} has the labels ({', '.join(task.labels)}) and cues for ({', '.join(task.cues)}): give"
            " each label its cues"
        )
    if task.quality_template.count(_MARK) != 1 or _MARK in task.caption_template:
        raise ValueError(f"task {task.code}: write {_MARK} once in quality_template, and not in caption_template")
    used = re.findall(r"\{\{(\w+)\}\}", task.caption_template + task.quality_template)
    unknown = [] if slots is None else [name for name in used if name not in {*slots, CAPTION}]
    if unknown:
        raise ValueError(
            f"task {task.code}: no input fills the slot {{{{{unknown[0]}}}}} of its templates; the inputs fill"
            f" {', '.join(slots or ())}"
        )
    size = max(len(task.labels), 1) + 1
    task.metrics.values(Confusion(np.ones((3, size, size))))


def check_distinct(tasks: Sequence[Task]) -> None:
    """Check that names and codes are unique.

    Raises:
        ValueError: two tasks have a name or code in common.
    """
    named: dict[str, Task] = {}
    for task in tasks:
        for key in {name_key(task.name), name_key(task.code)}:
            if key in named:
                raise ValueError(
                    f"tasks {named[key].name} ({named[key].code}) and {task.name} ({task.code}) have a name or code in"
                    " common: rename one of them"
                )
            named[key] = task


def name_key(name: str) -> str:
    """Return a name or code without case and separators, for comparison."""
    return "".join(c for c in name.lower() if c.isalnum())
