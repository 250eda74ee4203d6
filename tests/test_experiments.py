"""The paper's Tables 5, A3 and A4: one command each, on a run that reuses what it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from caslie_ray.storage.run import Run, open_run
from caslie_ray.tasks import TASKS
from tests.test_pipeline import job
from tests.worlds import draw

QUICK = ["training.epochs=1", "training.num_workers={min: 1, max: 1}", "training.variants=[caslie]",
         "votes.schedule=full", "experiments.shuffled=false"]  # fmt: skip


pytestmark = [pytest.mark.timeout(1600)]


def pipeline(folder: Path, *settings: str) -> Run:
    arguments = ["--profile", "mini", "--run", str(folder / "run"), "--source", str(folder / "source")]
    done = job("pipeline", *arguments, "--set", *QUICK, *settings, limit_s=800)
    assert done.returncode == 0, done.stderr[-3000:]
    return open_run(str(folder / "run"))


def test_each_experiment_adds_its_models_and_its_table(tmp_path: Path) -> None:
    draw(tmp_path / "source")
    run = pipeline(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in Path(run.root).glob("captions/*.parquet")}
    sets = "experiments.voter_sets=[[phi], [llama-8b, vision, mistral]]"
    pipeline(tmp_path, "experiments.task_specific=true", "experiments.context_free=true", sets)
    # The captions and votes that were there are those that are there.
    assert before == {path.name: path.stat().st_mtime_ns for path in Path(run.root).glob("captions/*.parquet")}
    assert run.read_json("summary/caption.json")["this_session"]["model_calls"] == 0
    free = run.below("context_free")
    assert {row["view_id"] for row in free.read("captions").to_pylist()} == {
        row["view_id"] for row in run.read("views").to_pylist()
    }
    assert {row["variant"] for row in run.read("experiments").to_pylist()} == {"context-free", "voters-1", "voters-3"}
    trained = {model["model"]: model["trained_now"] for model in run.read_json("summary/train.json")["models"]}
    assert trained == {
        "caslie": False, "context-free": True, "voters-1": True, "voters-3": True,
        **{f"task-specific-{task.code}": True for task in TASKS.values()},
    }  # fmt: skip
    answered = {(row["sample_id"], row["variant"]) for row in run.read("predictions").to_pylist()}
    variants = {variant for _, variant in answered}
    assert variants == {"caslie", "task-specific", "context-free", "voters-1", "voters-3"}
    assert len(answered) == len(variants) * len({sample for sample, _ in answered})
    tables = run.read_bytes(run.path("report/tables.md")).decode()
    for number in ("4", "5", "A3", "A4", "A7", "A13"):
        assert f"### Table {number}: " in tables
