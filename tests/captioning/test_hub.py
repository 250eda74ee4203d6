"""A caption job with a model of a hub: replicas download once, and a finished run needs no hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from caslie_ray.engines import resolve
from tests.hub import Fault, Hub, environment, hub
from tests.worlds import fresh_run, voter

ROOT = Path(__file__).resolve().parents[2]
NAME, GATED = "some-org/voter", "some-org/gated"


def caption(run: Path, server: Hub, home: Path, name: str, *, offline: bool = False) -> tuple[int, str]:
    """Run the job with one voter of the hub on two replicas; return its exit code and its log."""
    asked = json.dumps([voter("hub", checkpoint=name, revision="main", pool=[2, 2])])
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "jobs" / "caption.py"), "--run", str(run), "--quiet",
            "--set", "captions.source=dataset", f"lineup.voters={asked}",
        ],
        capture_output=True, text=True, timeout=250, check=False,
        env={**os.environ, **environment(server.url, home, offline=offline)},
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.cluster
def test_a_job_downloads_its_model_once_and_a_finished_run_needs_no_hub(world: Path, tmp_path: Path) -> None:
    fresh_run(world, tmp_path / "run")
    with hub() as server:
        folder = Path(shutil.copytree(resolve("miniature:voter-llama-3b").location, tmp_path / "model"))
        commit = server.publish(NAME, folder)
        server.publish(GATED, folder)
        server.faults = [Fault(f"/{GATED}/resolve/", 403, {"X-Error-Code": "GatedRepo"})]

        code, log = caption(tmp_path / "run", server, tmp_path / "home", GATED)
        assert (code, log.splitlines()[-1]) == (
            1,
            f"error: {GATED} is gated (accept its licence at {server.url}/{GATED} and set HF_TOKEN on every node)",
        )
        assert "loading hub" not in log, "replicas were started"

        code, log = caption(tmp_path / "run", server, tmp_path / "home", NAME)
        assert code == 0, log
        assert log.count(f"pin revision: {commit}") == 1
        assert server.count(f"/{NAME}/resolve/{commit}/model.safetensors") == 1
        summary = json.loads((tmp_path / "run" / "summary" / "caption.json").read_text())
        assert summary["missing"] == 0
        assert summary["this_session"]["models"]["hub"]["replicas_lost"] == 0

        before = server.asked.total()
        code, log = caption(tmp_path / "run", server, tmp_path / "home", NAME, offline=True)
        assert code == 0, log
        assert f"taking {commit}" in log
        assert "loading hub" not in log
        assert server.asked.total() == before
