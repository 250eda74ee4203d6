"""Which tasks there are, and how one more is added."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from caslie_ray import tasks
from caslie_ray.tasks import TASKS
from tests.tasks.records import RECORDS

_ROOT = Path(__file__).parents[2]

# A folder that joins the package before the tasks are looked for stands for a file laid into it.
_JOIN = """
import importlib.util, sys
spec = importlib.util.find_spec("caslie_ray.tasks")
package = importlib.util.module_from_spec(spec)
sys.modules["caslie_ray.tasks"] = package
package.__path__.append(sys.argv[1])
spec.loader.exec_module(package)
"""

_USE = """
import json
from pathlib import Path
import pyarrow as pa
from caslie_ray.fusion import fuse
from caslie_ray.profiles import load_profile
from caslie_ray.runs import open_run
from caslie_ray.tables import SCHEMAS
from caslie_ray.tasks import TASKS, find_task

task = find_task("gs")
record = {"split": "test", "input": {"event": "a birthday", "title": "Red mug"}, "output": "yes", "images": "mug.jpg"}
sample = task.parse(record)
(view,) = task.view_prompts(sample)
run = open_run(sys.argv[2])
run.write("samples", "0", pa.Table.from_pylist([{
    "sample_id": sample.sample_id, "task": task.name, "split": sample.split, "instruction": sample.instruction,
    "input": [{"field": name, "text": text} for name, text in sample.input], "options": list(sample.options),
    "output": sample.output, "view_ids": ["v"], "captions": [],
}], schema=SCHEMAS["samples"]))
run.write("captions", "0", pa.Table.from_pylist([{"view_id": "v", "caption": "A mug.", "verdict": True}],
    schema=SCHEMAS["captions"]))
fuse(run, load_profile("mini"), quiet=True)
prompts = {row["variant"]: row["prompt"] for row in run.read("instructions").to_pylist()}
print(json.dumps({
    "codes": [task.code for task in TASKS.values()],
    "options": sample.options,
    "caption": view.caption.text,
    "quality": view.quality.fill("caption", "A mug").text,
    "prompt": prompts["caslie"],
    "text": prompts["text"],
    "answer": task.read_answer("Yes, why not", sample.options),
    "score": task.metrics.score(["yes"], ["yes"], task.labels),
}))
"""

_TURN = (
    "Tell whether the product suits the occasion. Only output yes or no.\noccasion: a birthday\nproduct title: Red mug"
)


def test_seven_tasks_in_the_papers_order() -> None:
    assert [task.code for task in TASKS.values()] == ["AP", "CC", "PRP", "PSI", "MPC", "SA", "SR"]
    assert all(name == task.name for name, task in TASKS.items())


def test_a_task_says_all_that_is_needed_of_it() -> None:
    for task in TASKS.values():
        assert task.quality_template.count("{{caption}}") == 1, task.code
        assert "{{caption}}" not in task.caption_template
        assert set(task.cues) == set(task.labels)


def test_an_eighth_task_is_one_new_file(tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("eighth.py"), folder / "gift_suitability.py")
    command = [sys.executable, "-c", _JOIN + _USE, str(folder), str(tmp_path / "run")]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "codes": [*RECORDS, "GS"],
        "options": ["yes", "no"],
        "caption": "Describe the product in the image as a gift for a birthday.",
        "quality": "The gift is for a birthday. The image shows: A mug. Does that help? Only output yes or no.",
        "prompt": f"{_TURN}\ninformation from the product image: A mug.",
        "text": _TURN,
        "answer": "yes",
        "score": {"accuracy": 1.0, "recall": 1.0, "precision": 1.0, "f1": 1.0},
    }


@pytest.mark.parametrize("code", RECORDS)
def test_a_task_is_a_file_of_its_name(code: str) -> None:
    name = next(task.name for task in TASKS.values() if task.code == code)
    assert (Path(tasks.__path__[0]) / f"{name}.py").is_file()
