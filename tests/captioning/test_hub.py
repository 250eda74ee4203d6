"""Caption jobs with models of a hub: downloads, pinned revisions, and errors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from caslie_ray.engines import resolve
from tests.hub import Fault, Hub, environment, hub
from tests.worlds import fresh_run, voter

ROOT = Path(__file__).resolve().parents[2]
NAME, GATED = "some-org/voter", "some-org/gated"


def caption(
    run: Path, server: Hub, home: Path, *names: str, settings: Sequence[str] = (), offline: bool = False
) -> tuple[int, str]:
    """Run the job with these voters, two replicas for each of the hub; return its exit code and its log."""
    voters = [
        voter(name.rpartition("/")[2], checkpoint=name, revision="main", pool=[2, 2]) if "/" in name else voter(name)
        for name in names
    ]
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "jobs" / "caption.py"), "--run", str(run), "--quiet",
            "--set", "captions.source=dataset", f"lineup.voters={json.dumps(voters)}", *settings,
        ],
        capture_output=True, text=True, timeout=250, check=False,
        env={**os.environ, **environment(server.url, home, offline=offline)},
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A hub with a voter and a gated voter whose licence was not accepted."""
    with hub() as one:
        folder = tmp_path_factory.mktemp("hub") / "model"
        shutil.copytree(resolve("miniature:voter-llama-3b").location, folder)
        one.publish(NAME, folder)
        one.publish(GATED, folder)
        one.faults = [Fault(f"/{GATED}/resolve/", 403, {"X-Error-Code": "GatedRepo"})]
        yield one


@pytest.mark.cluster
def test_a_job_downloads_its_model_once_and_a_finished_run_needs_no_hub(
    server: Hub, world: Path, tmp_path: Path
) -> None:
    run, home = tmp_path / "run", tmp_path / "home"
    fresh_run(world, run)
    commit = server.refs[NAME, "main"]
    code, log = caption(run, server, home, NAME)
    assert code == 0, log
    assert log.count(f"pin revision: {commit}") == 1
    assert server.count(f"/{NAME}/resolve/{commit}/model.safetensors") == 1
    assert json.loads((run / "revisions.json").read_text()) == {f"{NAME}@main": commit}
    summary = json.loads((run / "summary" / "caption.json").read_text())
    assert summary["missing"] == 0
    assert summary["this_session"]["models"]["voter"]["replicas_lost"] == 0

    # The branch moves, the hub is unreachable and the cache is empty: the run keeps the commit that it used.
    server.refs[NAME, "main"] = "f" * 40
    before = server.asked.total()
    code, log = caption(run, server, tmp_path / "empty", NAME, offline=True)
    server.refs[NAME, "main"] = commit
    assert code == 0, log
    assert f"{NAME}@main is {commit}, as when this run first used it" in log
    assert "loading voter" not in log
    assert server.asked.total() == before


@pytest.mark.cluster
def test_a_voter_that_can_never_be_loaded_ends_a_staged_job_before_the_first_model(
    server: Hub, world: Path, tmp_path: Path
) -> None:
    fresh_run(world, tmp_path / "run")
    code, log = caption(
        tmp_path / "run", server, tmp_path / "home", "phi", "mistral", GATED, settings=["schedule=staged"]
    )
    assert (code, log.splitlines()[-1]) == (
        1,
        f"error: {GATED} is gated (accept its licence at {server.url}/{GATED} and set HF_TOKEN on every node)",
    )
    assert "loading" not in log, "replicas were started"


@pytest.mark.cluster
def test_a_quorum_continues_without_a_voter_missing_from_the_hub(server: Hub, world: Path, tmp_path: Path) -> None:
    fresh_run(world, tmp_path / "run")
    settings = ["faults.missing_voter=quorum", "votes.schedule=full"]
    code, log = caption(
        tmp_path / "run", server, tmp_path / "home", "phi", "mistral", "some-org/nowhere", settings=settings
    )
    assert code == 0, log
    assert "nowhere: the hub has no repository some-org/nowhere" in log
    summary = json.loads((tmp_path / "run" / "summary" / "caption.json").read_text())
    assert summary["missing"] == 0
    assert summary["voters"]["nowhere"]["failed"] == summary["views"]
    assert summary["voters"]["phi"]["failed"] == 0
