"""The README's example of a task, put into the package as a user would, through every job to tables and page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from caslie_ray.miniature import WorldSize
from caslie_ray.runs import Run, open_run
from tests.evaluation.browser import Page, chromium, complaints, screen
from tests.worlds import draw, rows, voter

ROOT = Path(__file__).resolve().parent.parent
NAME, CODE = "gift_suitability", "GS"
_JOBS = ("ingest", "caption", "fuse", "train", "predict", "evaluate", "pipeline")
_QUICK = [
    f"lineup.voters={json.dumps([voter('phi')])}", "votes.schedule=full", "training.epochs=1", "training.validations=1",
    "training.num_workers={min: 1, max: 1}", "evaluation.resamples=50",
]  # fmt: skip


class Checkout(NamedTuple):
    """A copy of the package and its jobs, with one more task."""

    folder: Path
    source: Path

    @property
    def run(self) -> Run:
        return open_run(str(self.folder / "run"))

    def job(self, name: str, *arguments: str, settings: Sequence[str] = ()) -> str:
        """Run a job as a user does; return what it printed."""
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        environment["PYTHONPATH"] = str(self.folder)
        chosen = [*_QUICK, f"evaluation.truth={self.source.parent}/truth", *settings]
        done = subprocess.run(
            [sys.executable, str(self.folder / "jobs" / f"{name}.py"), "--run", self.run.uri, *arguments,
             "--set", *chosen],
            capture_output=True, text=True, env=environment, cwd=self.folder, timeout=800, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


def readme_example() -> str:
    """The Python block of the README's section on adding a task."""
    section = (ROOT / "README.md").read_text().partition("### Add a task")[2]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return block[1]


def checkout(folder: Path) -> Checkout:
    for name in ("caslie_ray", "jobs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "caslie_ray" / "tasks" / f"{NAME}.py").write_text(readme_example())
    source = draw(folder / "source", WorldSize(train=2, validation=1, ind=1, ood=1))
    return Checkout(folder, add_rows(source))


def add_rows(source: Path) -> Path:
    """Add rows of the new task to a drawn data set, beside those of the other seven."""
    records = json.loads(source.read_text())
    splits = ("train", "train", "validation", "test", "test", "ood", "ood")
    records += [
        {
            "task": CODE,
            "split": split,
            "instruction": "",
            "input": json.dumps({"title": f"Hammer no. {number}", "occasion": "a birthday"}),
            "options": json.dumps(["yes", "no"]),
            "output": ("yes", "no")[number % 2],
            "images": json.dumps([f"images/{number:06}.jpg"]),
        }
        for number, split in enumerate(splits)
    ]
    source.write_text(json.dumps(records))
    return source


def cells(table: str) -> list[str]:
    """The heads of a table in Markdown."""
    return [cell.strip() for cell in table.splitlines()[0].split("|")]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, str]:
    """A run of the pipeline with eight tasks, and what it printed."""
    here = checkout(tmp_path_factory.mktemp("eighth"))
    settings = ["training.variants=[text, caslie]"]
    return here, here.job("pipeline", "--source", str(here.source), settings=settings)


@pytest.mark.timeout(600)
def test_every_job_takes_an_eighth_task(done: tuple[Checkout, str]) -> None:
    here, printed = done
    run = here.run
    assert not rows(run, "rejects")
    assert sum(row["task"] == NAME for row in rows(run, "samples")) == 7
    views = {row["view_id"] for row in rows(run, "views") if row["task"] == NAME}
    captions = [row for row in rows(run) if row["view_id"] in views]
    assert len(captions) == len(views) == 7
    assert all(row["votes"] for row in captions)
    variants = {row["variant"] for row in run.read("instructions").to_pylist() if row["task"] == NAME}
    assert variants == {"text", "uia", "caslie"}
    samples = [row for row in rows(run, "samples") if row["task"] == NAME]
    asked = {row["sample_id"] for row in samples if row["split"] in ("ind", "ood")}
    answers = [row for row in run.read("predictions").to_pylist() if row["sample_id"] in asked]
    assert {(row["sample_id"], row["variant"]) for row in answers} == {
        (sample_id, variant) for sample_id in asked for variant in ("text", "caslie")
    }
    for name in _JOBS:
        assert run.read_json(f"summary/{name}.json")["job"] == name
    assert NAME in run.read_json("summary/ingest.json")["samples_by_task"]
    results = run.read_json("summary/evaluate.json")["results"]["unim3"]
    for split in ("ind", "ood"):
        assert CODE in results[split]["mean_primary"]["caslie"]["by_task"]
    assert re.search(rf"caption used .*{CODE} \d", printed)
    assert re.search(rf"^ +IND .*\b{CODE}\b|\b{CODE}\b.*mean", printed, re.MULTILINE)


def test_its_metrics_have_intervals_and_its_tables_a_place(done: tuple[Checkout, str]) -> None:
    run = done[0].run
    metrics = [row for row in run.read_json("report/metrics.json") if row["task"] == NAME]
    assert {row["metric"] for row in metrics} == {"accuracy", "recall", "precision", "f1"}
    assert {(row["variant"], row["split"]) for row in metrics} == {
        (variant, split) for variant in ("text", "caslie") for split in ("ind", "ood")
    }
    assert all(row["low"] <= row["value"] <= row["high"] for row in metrics)
    markdown = run.read_bytes(run.path("report/tables.md")).decode()
    assert f"### {CODE}, all metrics" in markdown
    overall, ablation = (re.search(rf"### Table {number}: .*?\n\n(.*?)\n\n", markdown, re.DOTALL) for number in "46")
    assert overall is not None
    assert ablation is not None
    assert {f"IND {CODE}", f"OOD {CODE}"} <= set(cells(overall[1]))
    assert CODE in cells(ablation[1])
    assert f"{CODE}, all metrics" in run.read_bytes(run.path("report/tables.tex")).decode()


def test_the_page_shows_it(done: tuple[Checkout, str], tmp_path: Path) -> None:
    run = done[0].run
    views = {row["view_id"] for row in rows(run, "views") if row["task"] == NAME}
    with chromium(tmp_path / "chromium") as chrome:
        screen(chrome, 1280, 1000)
        page = Page(chrome, tmp_path).open(run.read_bytes(run.path("report/index.html")).decode())
        assert CODE in page.texts("#task option")
        page.select("task", CODE)
        assert set(page.all_shown) == views
        headings = page.texts("#figures h2")
        assert f"{CODE}, all metrics" in headings
        assert f"{CODE}, in domain: true and answered" in headings
        assert complaints(chrome) == []


def test_plans_and_status_know_it(done: tuple[Checkout, str]) -> None:
    here = done[0]
    settings = ["training.variants=[text, caslie]", "experiments.task_specific=true"]
    planned = here.job("pipeline", "--source", str(here.source), "--plan", settings=settings)
    assert f"task-specific-{CODE}" in planned
    assert "views" in here.job("caption", "--status")


@pytest.mark.verify
@pytest.mark.timeout(1800)
def test_every_experiment_takes_an_eighth_task(done: tuple[Checkout, str]) -> None:
    here, _ = done
    settings = [
        "training.variants=[text, uia, caslie]", "experiments.task_specific=true", "experiments.context_free=true",
        "experiments.shuffled=true", "experiments.voter_sets=[[phi]]", "evaluation.context_free=true",
    ]  # fmt: skip
    here.job("pipeline", "--source", str(here.source), settings=settings)
    markdown = here.run.read_bytes(here.run.path("report/tables.md")).decode()
    for number in ("4", "5", "6", "A3", "A4"):
        table = re.search(rf"### Table {number}: .*?\n\n(.*?)\n\n", markdown, re.DOTALL)
        assert table is not None, number
        assert any(CODE in head.split() for head in cells(table[1])), number
