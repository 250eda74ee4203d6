"""A copy of the package with tasks of a user's own in it, as a user's checkout has them, and data for them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

from tests.worlds import draw

ROOT = Path(__file__).resolve().parent.parent

OWN_METRIC = '''
import numpy as np

from caslie_ray.tasks import Confusion, InputField, Metrics, Task, Values, accuracy, metric


@metric("MCC")
def matthews(of: Confusion) -> Values:
    """Matthews correlation."""
    true, answered = of.counts.sum(-1), of.counts.sum(-2)
    covariance = of.hits.sum(-1) * of.total - (true * answered).sum(-1)
    return covariance / np.sqrt((of.total**2 - (true**2).sum(-1)) * (of.total**2 - (answered**2).sum(-1)))


TASK = Task(
    name="return_risk",
    code="RR",
    instruction="Decide if buyers will send the product back. Output only yes or no.",
    caption_template="Describe what buyers of {{title}} may be disappointed by.",
    quality_template="Product: {{title}}. Image: {{caption}}. Does the image help? Only output yes or no.",
    inputs=(InputField("title"),),
    labels=("yes", "no"),
    cues={"yes": ("yes",), "no": ("no",)},
    metrics=Metrics("matthews", (accuracy, matthews)),
)
'''
"""A task with a metric of its own."""

_SPLITS = ("train", "train", "validation", "test", "test", "ood", "ood")


class Checkout(NamedTuple):
    """A copy of the package and its jobs, and a data set."""

    root: Path
    source: Path


def readme_example() -> str:
    """The Python block of the README's section on adding a task."""
    section = (ROOT / "README.md").read_text().partition("### Add a task")[2]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return block[1]


def checkout(root: Path) -> Checkout:
    """Copy the package, add the README's task and one with a metric of its own, and draw data for all nine."""
    for name in ("caslie_ray", "jobs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    tasks = root / "caslie_ray" / "tasks"
    (tasks / "gift_suitability.py").write_text(readme_example())
    (tasks / "return_risk.py").write_text(OWN_METRIC)
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


__all__ = ["OWN_METRIC", "ROOT", "Checkout", "checkout", "readme_example"]
