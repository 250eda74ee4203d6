"""Captions that won beat every caption, and every caption beats none: models really trained, and really asked.

One data set for every change, as `make demo` draws it; three in `make verify`.
"""

from __future__ import annotations

from typing import Any

import pytest

from caslie_ray.runs import Run, open_run
from tests.test_pipeline import job

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]  # among the long files


@pytest.fixture(
    scope="module", params=[0, pytest.param(1, marks=pytest.mark.verify), pytest.param(2, marks=pytest.mark.verify)]
)
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """What the command of `make demo` leaves, with the control beside it, and what it says."""
    folder = tmp_path_factory.mktemp("demo")
    seed = request.param
    done = job(
        "pipeline", "--profile", "mini", "--run", str(folder / "run"), "--set", f"miniature.seed={seed}",
        f"training.seed={seed}", "experiments.shuffled=true", limit_s=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return open_run(str(folder / "run")), done.stdout


def results(demo: tuple[Run, str], split: str) -> dict[str, Any]:
    found: dict[str, Any] = demo[0].read_json("summary/evaluate.json")["results"]["unim3"][split]
    return found


@pytest.mark.parametrize(("split", "tasks"), [("ind", 7), ("ood", 5)])
def test_text_loses_to_every_caption_and_that_to_captions_that_won(
    demo: tuple[Run, str], split: str, tasks: int
) -> None:
    means = results(demo, split)["mean_primary"]
    assert {cell["tasks"] for cell in means.values()} == {tasks}
    text, uia, caslie = (means[name]["value"] for name in ("text", "uia", "caslie"))
    assert uia - text >= 0.05, means
    assert caslie - uia >= 0.05, means


@pytest.mark.parametrize("split", ["ind", "ood"])
def test_as_many_captions_chosen_at_random_lose(demo: tuple[Run, str], split: str) -> None:
    exceeds = results(demo, split)["caslie_exceeds"]["shuffled"]
    assert exceeds["low"] > 0


def test_at_least_300_answers_a_task_are_behind_each_figure(demo: tuple[Run, str]) -> None:
    metrics = demo[0].read_json("report/metrics.json")
    assert min(row["n"] for row in metrics) >= 300
    assert {row["variant"] for row in metrics} == {"text", "uia", "caslie", "shuffled"}


def test_the_demo_ends_with_the_ablation(demo: tuple[Run, str]) -> None:
    said = demo[1].split("primary metric of each task")[-1]
    assert all(name in said for name in ("text", "uia", "caslie", "shuffled", "caslie exceeds by"))
