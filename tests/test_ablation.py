"""The ablation with models trained and evaluated here: winning captions beat all captions, which beat none.

One data set for every change, as `make demo` draws it. `make verify` takes three, and adds the controls: captions
chosen at random, and verdicts without captions.
"""

from __future__ import annotations

from typing import Any

import pytest

from caslie_ray.storage.run import Run, open_run
from tests.test_pipeline import job

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]  # among the long files


@pytest.fixture(
    scope="module", params=[0, pytest.param(1, marks=pytest.mark.verify), pytest.param(2, marks=pytest.mark.verify)]
)
def seed(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def demo(seed: int, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """The run of the command of `make demo`, and its output."""
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


@pytest.mark.parametrize(("split", "tasks"), [("ind", 7), ("ood", 5)])
def test_text_loses_to_every_caption_and_that_to_captions_that_won(
    demo: tuple[Run, str], split: str, tasks: int
) -> None:
    found = results(demo, split)
    means = found["mean_primary"]
    assert {cell["tasks"] for cell in means.values()} == {tasks}
    text, uia, caslie = (means[name]["value"] for name in ("text", "uia", "caslie"))
    assert uia - text >= 0.03, means
    assert caslie - uia >= 0.03, means
    assert found["caslie_exceeds"]["uia"]["low"] > 0, found["caslie_exceeds"]


def test_each_figure_has_at_least_300_answers_per_task(demo: tuple[Run, str]) -> None:
    metrics = demo[0].read_json("report/metrics.json")
    assert min(row["n"] for row in metrics) >= 300
    assert {row["variant"] for row in metrics} == {"text", "uia", "caslie"}


def test_the_demo_ends_with_the_ablation(demo: tuple[Run, str]) -> None:
    said = demo[1].split("primary metric of each task")[-1]
    assert all(name in said for name in ("text", "uia", "caslie", "caslie exceeds by"))


def test_verdicts_alone_hardly_predict_the_answers(demo: tuple[Run, str]) -> None:
    found = demo[0].read_json("summary/evaluate.json")["verdict_bits"]
    measured = {(code, split): one for code, splits in found.items() for split, one in splits.items()}
    assert len(measured) == 12
    assert {name: one["gain"] for name, one in measured.items() if one["gain"]["low"] > 0.03} == {}


@pytest.mark.verify
@pytest.mark.parametrize("split", ["ind", "ood"])
def test_verdicts_without_captions_lose(control: tuple[Run, str], split: str) -> None:
    found = results(control, split)
    means = found["mean_primary"]
    assert means["caslie"]["value"] - means["verdict-only"]["value"] >= 0.05, means
    assert found["caslie_exceeds"]["verdict-only"]["low"] > 0


@pytest.mark.verify
@pytest.mark.parametrize("split", ["ind", "ood"])
def test_as_many_captions_chosen_at_random_lose(control: tuple[Run, str], split: str) -> None:
    found = results(control, split)
    assert set(found["mean_primary"]) == {"text", "uia", "caslie", "shuffled", "verdict-only"}
    assert found["caslie_exceeds"]["shuffled"]["low"] > 0
    trained = {model["model"]: model["trained_now"] for model in control[0].read_json("summary/train.json")["models"]}
    assert {name for name, now in trained.items() if now} == {"shuffled", "verdict-only"}
