"""A copy of the package with tasks of a user's own in it, as a user's checkout has them, and data for them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from tests.worlds import draw

ROOT = Path(__file__).resolve().parent.parent

_OWN_TASK = """
from caslie_ray.tasks import InputField, Task

TASK = Task(
    name="return_risk",
    code="RR",
    instruction="Decide if buyers will send the product back. Output only yes or no.",
    caption_template="Describe what buyers of {{title}} may be disappointed by.",
    quality_template="Product: {{title}}. Image: {{caption}}. Does the image help? Only output yes or no.",
    inputs=(InputField("title"),),
    labels=("yes", "no"),
    cues={"yes": ("yes",), "no": ("no",)},
    metrics=METRICS,
)
"""

_SPLITS = ("train", "train", "validation", "test", "test", "ood", "ood")


class Checkout(NamedTuple):
    """A copy of the package and its jobs, and a data set."""

    root: Path
    source: Path


def readme_examples() -> tuple[str, str]:
    """The Python blocks of the README of tasks: a task, and metrics."""
    text = (ROOT / "caslie_ray" / "tasks" / "README.md").read_text()
    task, metrics = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return task, metrics


def checkout(root: Path) -> Checkout:
    """Copy the package, add the README's task and one with the README's metric, and draw data for all nine."""
    for name in ("caslie_ray", "jobs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    tasks = root / "caslie_ray" / "tasks"
    task, metrics = readme_examples()
    (tasks / "gift_suitability.py").write_text(task)
    (tasks / "return_risk.py").write_text(metrics + _OWN_TASK)
    source = draw(root / "source")
    records = json.loads(source.read_text())
    for code, inputs in (("GS", {"title": "Hammer", "occasion": "a birthday"}), ("RR", {"title": "Hammer"})):
        records += [_record(code, number, split, inputs) for number, split in enumerate(_SPLITS)]
    source.write_text(json.dumps(records))
    return Checkout(root, source)


def _record(code: str, number: int, split: str, inputs: dict[str, str]) -> dict[str, str]:
    return {
        "task": code,
        "split": split,
        "instruction": "",
        "input": json.dumps(inputs | {"title": f"{inputs['title']} no. {number}"}),
        "options": json.dumps(["yes", "no"]),
        "output": ("yes", "no")[number % 2],
        "images": json.dumps([f"images/{number:06}.jpg"]),
    }


__all__ = ["ROOT", "Checkout", "checkout", "readme_examples"]
