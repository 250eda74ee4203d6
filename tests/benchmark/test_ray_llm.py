"""Ray's own batch inference on the miniature checkpoints, as the benchmark runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from caslie_ray.benchmark.ray_llm import RayLlmTask, refusal, run_ray_llm
from caslie_ray.benchmark.views import select
from caslie_ray.profiles import Profile
from caslie_ray.runs import open_run
from tests.worlds import profile, voter

COUNT = 40


def on_vllm() -> Profile:
    return profile(voter("phi", engine="vllm"), settings=["lineup.captioner.engine=vllm"])


def test_what_it_cannot_run() -> None:
    assert refusal(on_vllm(), "captioning") == refusal(on_vllm(), "voting") == ""
    assert "unim3" in refusal(on_vllm(), "prediction")
    assert "one model" in refusal(on_vllm(), "chain")
    assert "llama-3b, llama-8b, vision" in refusal(profile(), "voting")


@pytest.mark.vllm
@pytest.mark.timeout(1800)
@pytest.mark.verify
@pytest.mark.parametrize("measure", ["captioning", "voting"])
def test_it_answers_all_requests(measure: str, world: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(on_vllm().model_dump_json())
    found = select(open_run(str(world)), open_run(str(tmp_path / "run")), COUNT)
    run = found.views if measure == "captioning" else found.given
    timing = run_ray_llm(RayLlmTask(str(path), measure, run.uri), tmp_path)
    assert timing.reason == ""
    assert timing.units == found.counts["views"]
    assert timing.rate is not None
    assert timing.rate > 0
    assert timing.first_row_s is not None
    assert 0 < timing.first_row_s < timing.seconds
