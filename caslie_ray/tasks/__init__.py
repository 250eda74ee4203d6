"""The seven tasks of MMECInstruct (paper section 3.1, Appendix B), a file each.

Every module of this folder whose name does not start with an underscore defines one `TASK`; an eighth task
is one new file.
"""

from __future__ import annotations

import importlib
import pkgutil

from caslie_ray.prompts import Prompt
from caslie_ray.tasks._answers import option_titles, strip_mark, strip_ordinal
from caslie_ray.tasks._metrics import Metrics, binary, macro, recall_at_1
from caslie_ray.tasks._parsing import SPLITS, RowError, read_split
from caslie_ray.tasks._sample import ImageRef, Sample, UnreadableImage, ViewPrompts
from caslie_ray.tasks._task import InputField, Task, caption_line

__all__ = [
    "SPLITS",
    "TASKS",
    "ImageRef",
    "InputField",
    "Metrics",
    "Prompt",
    "RowError",
    "Sample",
    "Task",
    "UnreadableImage",
    "ViewPrompts",
    "binary",
    "caption_line",
    "find_task",
    "macro",
    "option_titles",
    "read_split",
    "recall_at_1",
    "strip_mark",
    "strip_ordinal",
]

_PAPER_ORDER = ("AP", "CC", "PRP", "PSI", "MPC", "SA", "SR")


def _discover() -> dict[str, Task]:
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    found: list[Task] = [importlib.import_module(f"{__name__}.{name}").TASK for name in names]
    place = {code: index for index, code in enumerate(_PAPER_ORDER)}
    return {task.name: task for task in sorted(found, key=lambda t: (place.get(t.code, len(place)), t.code))}


TASKS: dict[str, Task] = _discover()


def find_task(name: object) -> Task:
    """Return a task by its full name or its short one, in any case and with any separators.

    Raises:
        RowError: there is no such task.
    """
    key = "".join(c for c in str(name).lower() if c.isalnum()) if isinstance(name, str) else ""
    for task in TASKS.values():
        if key in (task.code.lower(), task.name.replace("_", "")):
            return task
    known = ", ".join(f"{task.name} ({task.code})" for task in TASKS.values())
    shown = f"task {name[:80]!r} is unknown" if isinstance(name, str) and name.strip() else "task is missing"
    raise RowError(f"{shown}: use one of {known}")
