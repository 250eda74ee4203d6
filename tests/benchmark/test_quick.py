"""The command as a user runs it, in its short form: whether every figure is there, not how large it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from caslie_ray.benchmark._systems import BARE, PLAIN, PUBLISHED, RAY_LLM

ROOT = Path(__file__).resolve().parents[2]
RUNS_HERE = {
    "captioning", "voting", "chain (streamed, full votes)", "chain (staged, full votes)", "prediction",
}  # fmt: skip
OF_MEMORY = {"driver", "workers", "ray", "object_store"}


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("quick")
    # The paths of Ray's sockets must be short.
    environment = {**os.environ, "TMPDIR": str(folder), "RAY_TMPDIR": tempfile.gettempdir()}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "jobs/benchmark.py"), "--profile", "mini", "--quick",
            "--json", str(folder / "b.json"), "--plot", str(folder / "b.svg"),
        ],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    entries = json.loads((folder / "b.json").read_text())
    assert (folder / "b.svg").read_text().startswith("<svg")
    assert not list(folder.glob("caslie-*")), "temporary folders are left"
    return {"entries": {one["name"]: one for one in entries}, "output": done.stdout}


@pytest.mark.timeout(1200)
def test_each_side_that_runs_here_has_a_ratio(result: dict[str, Any]) -> None:
    entries = result["entries"]
    ran = {name for name, one in entries.items() if one["ratio"] is not None}
    wanted = {f"{name} vs {other}" for name in RUNS_HERE for other in (PUBLISHED, BARE)} | {f"training vs {PLAIN}"}
    assert {name for name in ran if " vs " in name} == wanted
    for name in wanted:
        one = entries[name]
        assert 0 < one["low"] <= one["ratio"] <= one["high"], name
        assert one["ours"] > 0, name
        assert one["other"] > 0, name
        assert one["ours_details"]["seconds"] > one["ours_details"]["start_s"] > 0, name
        assert one["other_details"]["seconds"] > one["other_details"]["start_s"] > 0, name
        assert one["ours_details"]["memory_mib"].keys() == OF_MEMORY, name
        assert one["ours_details"]["memory_mib"]["workers"] > 100, name


def test_what_cannot_run_here_is_listed_with_a_reason(result: dict[str, Any]) -> None:
    entries = result["entries"]
    for measure in ("captioning", "voting", "chain", "prediction"):
        found = [one for name, one in entries.items() if name.startswith(measure) and name.endswith(RAY_LLM)]
        assert found
        assert all(one["ratio"] is None and one["reason"] for one in found)
    assert entries[f"chain (staged, early exit) vs {BARE}"]["reason"].startswith("one voter")


def test_rows_are_counted_as_they_arrive_and_running_engines_are_seen(result: dict[str, Any]) -> None:
    for name in RUNS_HERE - {"prediction"}:
        details = result["entries"][f"{name} vs {BARE}"]["ours_details"]
        assert 0 < details["first_row_s"] < details["seconds"], name
        assert details["busy_share"], name
        assert all(share > 0 for share in details["busy_share"].values()), name


def test_votes_agree_with_generated_text(result: dict[str, Any]) -> None:
    (one,) = (one for name, one in result["entries"].items() if "agreement" in name)
    assert one["other"] > 30
    assert one["ratio"] >= 0.99, one["differences"]
    assert len(one["differences"]) == one["other"] - one["ours"]


def test_the_jobs_own_cost_by_size_and_part(result: dict[str, Any]) -> None:
    one = result["entries"][f"chain (streamed, full votes) vs {BARE}"]
    assert [size["views"] for size in one["scale"]] == [100, 300]
    for size in one["scale"]:
        assert size["reason"] == ""
        assert size["ms_a_view"] > 0
        assert size["memory_mib"]["driver"] > 50
    parts = one["cpu_ms_a_view_by_part"]
    assert set(parts) == {"reading", "tokenizing", "decoding", "model", "writing", "ray", "job"}
    for name in ("reading", "tokenizing", "decoding", "model", "writing", "job"):
        assert parts[name] > 0, parts
    known = sum(value for name, value in parts.items() if name != "job")
    assert known == pytest.approx(parts["job"], abs=0.01)


def test_the_table_names_each_comparison(result: dict[str, Any]) -> None:
    for name in result["entries"]:
        assert name in result["output"]
    assert "Not measured" in result["output"]
