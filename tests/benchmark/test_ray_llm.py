"""Ray's own batch inference on the miniature checkpoints, as the benchmark runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray.data

from caslie_ray.benchmark._ray_llm import RayLlmTask, refusal, root_cause, run_ray_llm
from caslie_ray.benchmark._views import select
from caslie_ray.captioning import caption
from caslie_ray.fusion import fuse
from caslie_ray.profiles import Profile, load_profile
from caslie_ray.storage.run import open_run
from tests.worlds import fresh_run, profile, voter

COUNT = 40


def on_vllm(*settings: str) -> Profile:
    return profile(voter("phi", engine="vllm"), settings=["lineup.captioner.engine=vllm", *settings])


def test_what_it_cannot_run() -> None:
    assert refusal(on_vllm(), "captioning") == refusal(on_vllm(), "voting") == ""
    assert "unim3" in refusal(on_vllm(), "prediction")
    assert "one model" in refusal(on_vllm(), "chain")
    assert "llama-3b, llama-8b, vision" in refusal(profile(), "voting")


def test_the_reason_of_a_failure_is_its_first_error(ray_cluster: None) -> None:
    def fail(row: dict[str, Any]) -> dict[str, Any]:
        try:
            raise ValueError("12 tokens,\nwhere 1 is allowed")
        except ValueError as error:
            raise RuntimeError("a row failed") from error

    with pytest.raises(Exception, match="To change retry attempts") as caught:
        ray.data.range(1).map(fail).materialize()
    assert root_cause(caught.value) == "ValueError: 12 tokens, where 1 is allowed"
    assert root_cause(OSError("no room")) == "OSError: no room"


@pytest.mark.vllm
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("measure", ["captioning", "voting", "prediction"])
def test_it_answers_all_requests(measure: str, world: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(on_vllm("lineup.base.engine=vllm").model_dump_json())
    source = fresh_run(world, tmp_path / "source")
    given = load_profile("mini", ["captions.source=dataset", "votes.rule=always"])
    caption(source, given, quiet=True)
    fuse(source, given, quiet=True)
    found = select(source, open_run(str(tmp_path / "run")), COUNT)
    run = {"captioning": found.views, "voting": found.given, "prediction": found.questions}[measure]
    timing = run_ray_llm(RayLlmTask(str(path), measure, run.uri), tmp_path)
    assert timing.reason == ""
    assert timing.units == found.counts["questions" if measure == "prediction" else "views"]
    assert timing.rate is not None
    assert timing.rate > 0
    assert timing.first_row_s is not None
    assert 0 < timing.first_row_s < timing.seconds
