"""`caption --status`: the progress of a run, read from its files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from caslie_ray.captioning import caption_status
from caslie_ray.captioning._caption_work import CaptionWork, caption_partition
from caslie_ray.errors import RunError
from caslie_ray.roles import resolve
from caslie_ray.storage.claims import Claim
from caslie_ray.storage.run import open_run
from tests.worlds import InProcess, caption_here, fresh_run, profile, rows, voter

ROOT = Path(__file__).resolve().parents[2]
ONE = profile(voter("llama-3b"), settings=["captions.source=dataset"])


def status_output(run: Path) -> str:
    """Return the output of the command where Ray is unreachable."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "caption.py"), "--run", str(run), "--status"],
        capture_output=True, text=True, timeout=60, check=True, env={**os.environ, "RAY_ADDRESS": "127.0.0.1:9"},
    )  # fmt: skip
    return done.stdout


def write_claim(run: Path, since: float) -> None:
    claim = Claim("f00", "caption", "far", "far away", 17, 0.0, "raysubmit_1", since, 60.0)
    (run / "lease").mkdir()
    (run / "lease" / "epoch-00000001.json").write_text(json.dumps(asdict(claim)))


def test_status_of_a_run_in_progress(world: Path, tmp_path: Path) -> None:
    run = fresh_run(world, tmp_path / "run")
    write_claim(tmp_path / "run", time.time() - 5)
    lineup, ask = resolve(ONE), InProcess()
    names = sorted({run.partition(path) for path in run.files("views")})
    for name in names[::2]:
        list(caption_partition(CaptionWork(run, lineup, 8, lineup.names), name, ask))
    # One block of another partition, and a truncated file of a writer that died.
    next(iter(caption_partition(CaptionWork(run, lineup, 1, lineup.names), names[1], ask)))
    stored = rows(run)
    Path(run.path("captions", f"{names[1]}-dead.parquet")).write_bytes(b"half")
    status = caption_status(run)
    assert (status.views, status.done) == (len(rows(run, "views")), len(stored))
    assert 0 < status.left < status.views
    assert status.used == sum(row["verdict"] for row in stored)
    assert status.damaged == 1
    output = status_output(tmp_path / "run")
    assert re.search(rf"done +{status.done} \(\d+\.\d%\)", output)
    assert "held by      caption (process 17 on far, submitted as raysubmit_1, since " in output
    assert re.search(r"UTC\), last renewed \S+ ago", output)
    assert re.search(r"rate +about \d+\.\d views/s over \d+s · \S+ left", output)
    assert "1 damaged, their rows are asked again" in output


def test_status_counts_errors_and_retryable_rows(world: Path, tmp_path: Path) -> None:
    run = fresh_run(world, tmp_path / "run")
    for path in run.files("images"):
        Path(path).unlink()
    caption_here(run, profile(settings=["votes.rule=always"]), InProcess())
    status = caption_status(run)
    assert status.retryable == status.errors.total() == status.done == status.views > 0
    assert any("to be asked again" in line for line in status.lines())
    assert any("held by      no job" in line for line in status.lines())


def test_status_counts_the_answers_of_a_stage_by_model(world: Path, tmp_path: Path) -> None:
    run = fresh_run(world, tmp_path / "run")
    lineup = resolve(ONE)
    names = sorted({run.partition(path) for path in run.files("views")})
    for name in names:
        list(caption_partition(CaptionWork(run, lineup, 8, lineup.names, "llama-3b"), name, InProcess()))
    status = caption_status(run)
    assert status.done == 0
    assert list(status.answers.values()) == [len(rows(run, "views"))]
    assert any(line.startswith("answers") and "llama-3b" in line for line in status.lines())


def test_a_run_without_views_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="run ingest first"):
        caption_status(open_run(str(tmp_path / "none")))
    assert not (tmp_path / "none").exists()
