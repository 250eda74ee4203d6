"""The ablation of three demos, with models that are really trained: order, gaps and controls.

`make check-demo` checks the first data set for every change. The controls are captions chosen at random and verdicts
without captions.
"""

from __future__ import annotations

from typing import Any

import pytest

from caslie_ray.storage.run import Run, open_run
from tests.ablation import problems
from tests.test_pipeline import job

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module", params=[0, 1, 2])
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def demo(seed: int, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """The run of `make demo`, and what it printed."""
    return pipeline(str(tmp_path_factory.mktemp("demo") / "run"), seed)


@pytest.fixture(scope="module")
def control(seed: int, demo: tuple[Run, str]) -> tuple[Run, str]:
    """The same run with the controls added; everything else is reused."""
    return pipeline(demo[0].uri, seed, "experiments.shuffled=true", "experiments.verdict_only=true")


def pipeline(run: str, seed: int, *settings: str) -> tuple[Run, str]:
    done = job(
        "pipeline", "--profile", "mini", "--run", run, "--set", f"miniature.seed={seed}", f"training.seed={seed}",
        *settings, limit_s=3000,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return open_run(run), done.stdout


def results(demo: tuple[Run, str], split: str) -> dict[str, Any]:
    found: dict[str, Any] = demo[0].read_json("summary/evaluate.json")["results"]["unim3"][split]
    return found


def test_captions_help_and_captions_that_voters_chose_help_more(demo: tuple[Run, str]) -> None:
    metrics = demo[0].read_json("report/metrics.json")
    assert problems(metrics) == []
    assert {row["variant"] for row in metrics} == {"text", "uia", "caslie"}


@pytest.mark.parametrize("split", ["ind", "ood"])
def test_the_gap_between_chosen_captions_and_all_captions_is_significant(demo: tuple[Run, str], split: str) -> None:
    found = results(demo, split)
    assert found["caslie_exceeds"]["uia"]["low"] > 0, found["caslie_exceeds"]


def test_the_demo_prints_the_ablation_last(demo: tuple[Run, str]) -> None:
    printed = demo[1].split("primary metric of each task")[-1]
    assert all(name in printed for name in ("text", "uia", "caslie", "caslie exceeds by"))


def test_verdicts_alone_predict_almost_no_answers(demo: tuple[Run, str]) -> None:
    found = demo[0].read_json("summary/evaluate.json")["verdict_bits"]
    measured = {(code, split): one for code, splits in found.items() for split, one in splits.items()}
    assert len(measured) == 12
    assert {name: one["gain"] for name, one in measured.items() if one["gain"]["low"] > 0.03} == {}


@pytest.mark.parametrize("split", ["ind", "ood"])
def test_verdicts_without_captions_score_lower(control: tuple[Run, str], split: str) -> None:
    found = results(control, split)
    means = found["mean_primary"]
    assert means["caslie"]["value"] - means["verdict-only"]["value"] >= 0.05, means
    assert found["caslie_exceeds"]["verdict-only"]["low"] > 0


@pytest.mark.parametrize("split", ["ind", "ood"])
def test_as_many_randomly_chosen_captions_score_lower(control: tuple[Run, str], split: str) -> None:
    found = results(control, split)
    assert set(found["mean_primary"]) == {"text", "uia", "caslie", "shuffled", "verdict-only"}
    assert found["caslie_exceeds"]["shuffled"]["low"] > 0
    trained = {model["model"]: model["trained_now"] for model in control[0].read_json("summary/train.json")["models"]}
    assert {name for name, now in trained.items() if now} == {"shuffled", "verdict-only"}
