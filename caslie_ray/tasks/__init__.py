"""The tasks, one file each: the seven of MMECInstruct (paper section 3.1, Appendix B), and any that a user adds.

Every module of this folder defines one `TASK`, except `metrics` and those whose names start with an underscore.
"""

from __future__ import annotations

import importlib
import pkgutil

from caslie_ray.prompts import Prompt
from caslie_ray.tasks._answer_reading import option_titles, strip_mark, strip_ordinal
from caslie_ray.tasks._definition_checks import check_distinct, name_key
from caslie_ray.tasks._errors import OptionsError
from caslie_ray.tasks._image_references import read_references
from caslie_ray.tasks._parsing import SPLITS, RowError, as_text, decoded, is_missing, read_split, structured
from caslie_ray.tasks._sample import ImageRef, Sample, UnreadableImage, ViewPrompts
from caslie_ray.tasks._task import InputField, Task, caption_line
from caslie_ray.tasks.metrics import (
    Confusion,
    Metric,
    Metrics,
    Values,
    accuracy,
    binary,
    label_indices,
    macro,
    metric,
    recall_at_1,
    share,
)

__all__ = [
    "SPLITS",
    "TASKS",
    "Confusion",
    "ImageRef",
    "InputField",
    "Metric",
    "Metrics",
    "OptionsError",
    "Prompt",
    "RowError",
    "Sample",
    "Task",
    "UnknownTask",
    "UnreadableImage",
    "Values",
    "ViewPrompts",
    "accuracy",
    "as_text",
    "binary",
    "caption_line",
    "decoded",
    "find_task",
    "is_missing",
    "label_indices",
    "macro",
    "metric",
    "option_titles",
    "read_references",
    "read_split",
    "recall_at_1",
    "share",
    "short_name",
    "strip_mark",
    "strip_ordinal",
    "structured",
]

_NO_TASKS = ("metrics",)
_PAPER_ORDER = ("AP", "CC", "PRP", "PSI", "MPC", "SA", "SR")


def _discover() -> dict[str, Task]:
    modules = [module.name for module in pkgutil.iter_modules(__path__) if module.name not in _NO_TASKS]
    names = [name for name in modules if not name.startswith("_")]
    found: list[Task] = [importlib.import_module(f"{__name__}.{name}").TASK for name in names]
    check_distinct(found)
    place = {code: index for index, code in enumerate(_PAPER_ORDER)}
    return {task.name: task for task in sorted(found, key=lambda t: (place.get(t.code, len(place)), t.code))}


class UnknownTask(LookupError):
    """A run has rows of a task that no module of this folder defines."""


class _Tasks(dict[str, Task]):
    def __missing__(self, name: str) -> Task:
        raise UnknownTask(
            f"the run has rows of the task {name!r}, which no file in caslie_ray/tasks/ defines: put its file there,"
            " on every node where caslie_ray is installed"
        )


TASKS: dict[str, Task] = _Tasks(_discover())
"""The tasks by their full names, the paper's first."""


def find_task(name: object) -> Task:
    """Return a task by its name or code, ignoring case and separators.

    Raises:
        RowError: there is no such task.
    """
    key = name_key(name) if isinstance(name, str) else ""
    for task in TASKS.values():
        if key in (name_key(task.code), name_key(task.name)):
            return task
    known = ", ".join(f"{task.name} ({task.code})" for task in TASKS.values())
    shown = f"task {name[:80]!r} is unknown" if isinstance(name, str) and name.strip() else "task is missing"
    raise RowError(f"{shown}: use one of {known}")


def short_name(name: str) -> str:
    """Return the code of a task; of a catalogue's context, its name."""
    task = TASKS.get(name)
    return task.code if task is not None else name
