"""The caption job on vLLM has the results of transformers, and survives a killed engine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

from caslie_ray.captioning import caption, plan_captions
from caslie_ray.dataset import ingest
from caslie_ray.miniature import WorldSize
from caslie_ray.profiles import Profile
from caslie_ray.roles import resolve
from caslie_ray.storage.run import open_run
from tests.engines.test_vllm import processes, wait_for
from tests.worlds import VOTERS, InProcess, caption_here, draw, edit_views, fresh_run, profile, rows, voter

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


FAMILIES = ("llama-3b", "mistral", "phi")


def mini(engine: str, *names: str, settings: Sequence[str] = ()) -> Profile:
    """The captioner and some voters of the mini profile, all on one engine."""
    voters = [voter(name, engine=engine) for name in names]
    return profile(*voters, settings=[f"lineup.captioner.engine={engine}", *settings])


@pytest.fixture(scope="module")
def wide(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of more than 200 views, with an unreadable image and a prompt that no context fits."""
    folder = tmp_path_factory.mktemp("wide")
    source = draw(folder / "source", WorldSize(train=10, validation=0, ind=6, ood=6))
    run = open_run(str(folder / "run"))
    ingest(run, [str(source)], profile())
    path = run.files("images")[0]
    images = run.read_file(path)
    encoded = [b"no image", *images["image"].to_pylist()[1:]]
    column = images.schema.get_field_index("image")
    images = images.set_column(column, images.schema.field(column), pa.array(encoded, images.schema.field(column).type))
    run.write("images", run.partition(path), images)
    chosen = rows(run, "views")[0]["view_id"]
    edit_views(run, lambda row: {**row, "caption_prompt": "mug " * 3000} if row["view_id"] == chosen else None)
    return folder / "run"


def outcome(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["view_id"], row["caption"], row["verdict"], row["cut"], row["error"]


def test_captions_and_votes_equal_those_of_transformers(wide: Path, tmp_path: Path, ask: InProcess) -> None:
    same = fresh_run(wide, tmp_path / "same")
    caption_here(same, mini("transformers", *VOTERS, settings=["votes.schedule=full"]), ask)
    expected = rows(same)
    run = fresh_run(wide, tmp_path / "run")
    settings = ["votes.schedule=full", "schedule=streamed"]
    result = caption(run, mini("vllm", *VOTERS, settings=settings), quiet=True)
    ours = rows(run)
    assert len(ours) >= 200
    assert list(map(outcome, ours)) == list(map(outcome, expected))
    assert sum(row["error"] is not None for row in ours) >= 2
    for one, other in zip(ours, expected, strict=True):
        for vote, same in zip(one["votes"] or (), other["votes"] or (), strict=True):
            assert (vote["voter"], vote["error"], vote["tokens"]) == (same["voter"], same["error"], same["tokens"])
            assert vote["p_yes"] == pytest.approx(same["p_yes"], abs=1e-3)
            if abs(same["p_yes"] - 0.5) > 1e-3:
                assert vote["answer"] == same["answer"]
    models = result.summary["this_session"]["models"]
    assert set(models) == {"captioner", *VOTERS}
    assert all(model["engine"]["prefix_cache_tokens"] > 0 for model in models.values())
    assert result.summary["engines"] == dict.fromkeys(["captioner", *VOTERS], "vllm")
    assert wait_for(lambda: not processes())


@pytest.mark.parametrize("names", [FAMILIES, VOTERS])
def test_the_staged_schedule_ends_with_the_same_verdicts(
    wide: Path, tmp_path: Path, names: tuple[str, ...], ask: InProcess
) -> None:
    same = fresh_run(wide, tmp_path / "same")
    caption_here(same, mini("transformers", *names), ask)
    run = fresh_run(wide, tmp_path / "run")
    caption(run, mini("vllm", *names, settings=["schedule=staged"]), quiet=True)
    assert list(map(outcome, rows(run))) == list(map(outcome, rows(same)))
    assert wait_for(lambda: not processes())


def test_a_killed_engine_is_replaced_without_losing_rows(
    wide: Path, tmp_path: Path, ask: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    run = fresh_run(wide, tmp_path / "run")
    only = profile(
        voter("phi", engine="vllm"), settings=["captions.source=dataset", "storage.block_rows=1", "schedule=streamed"]
    )
    undisturbed = fresh_run(wide, tmp_path / "undisturbed")
    caption_here(undisturbed, profile(voter("phi"), settings=["captions.source=dataset"]), ask)
    assert sum(row["caption"] is not None for row in rows(undisturbed)) >= 200
    killed: list[int] = []

    def kill() -> None:
        if wait_for(lambda: len(run.files("captions")) > 5, 300):
            for process in processes():
                killed.append(process)
                os.kill(process, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    result = caption(run, only, quiet=True)
    killer.join()
    assert killed
    assert not any(map(psutil.pid_exists, killed))
    assert result.missing == 0
    assert list(map(outcome, rows(run))) == list(map(outcome, rows(undisturbed)))
    assert result.summary["this_session"]["models"]["phi"]["replicas_lost"] >= 1
    assert "phi: a replica was lost: EngineError: the vLLM engine of miniature:voter-phi died" in caplog.text
    assert wait_for(lambda: not processes())


def test_a_plan_prints_each_engine_and_the_reason(world: Path, tmp_path: Path) -> None:
    chosen = profile(
        voter("phi", engine="auto"), voter("mistral", engine="auto", resources={"cpus": 0.2, "gpus": 0.2}),
        voter("vision"), settings=["captions.source=dataset"],
    )  # fmt: skip
    lines = resolve(chosen).engines()
    assert lines[0].startswith("mistral  transformers · the installed vLLM is built for cpu")
    assert sorted(lines[1:]) == ["phi      vllm · vLLM supports it", "vision   transformers"]
    run = fresh_run(world, tmp_path / "run")
    planned = plan_captions(run, profile(voter("phi", engine="auto"), settings=["captions.source=dataset"]), quiet=True)
    assert "engines      phi  vllm · vLLM supports it" in planned.lines()
    assert planned.timed > 0
