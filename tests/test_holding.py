"""One job at a time on a run: who is refused, who takes over, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from caslie_ray import holding
from caslie_ray.holding import Claim, Holding, RunHeld, holders
from caslie_ray.runs import open_run

ROOT = Path(__file__).resolve().parent.parent

HOLDER = """
import sys, time
from caslie_ray.holding import Holding
from caslie_ray.runs import open_run

with Holding(open_run(sys.argv[1]), "caption", submission="raysubmit_1"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def other_process(run: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(run)], stdout=subprocess.PIPE, text=True, cwd=ROOT) as one:
        try:
            assert one.stdout is not None
            assert one.stdout.readline() == "held\n"
            yield one
        finally:
            one.kill()


def claim_of(run: Path, **changes: Any) -> Claim:
    """A claim as a job on another machine would leave it."""
    now = time.time()
    claim = Claim("f00", "caption", "far", "far away", 1, 0.0, "", now, now, 60.0, held=True)
    claim = replace(claim, **changes)
    run.mkdir(exist_ok=True)
    (run / f"holder-{claim.id}.json").write_text(json.dumps(asdict(claim)))
    return claim


def test_a_second_job_is_refused_and_told_who_holds_the_run(tmp_path: Path) -> None:
    with other_process(tmp_path / "run") as process:
        with pytest.raises(RunHeld) as refused, Holding(open_run(str(tmp_path / "run")), "fuse"):
            pass
        told = str(refused.value)
        assert f"caption (process {process.pid} on " in told
        assert "submitted as raysubmit_1" in told
        assert "wait for it, or stop it" in told
        assert [claim.pid for claim in holders(open_run(str(tmp_path / "run")))] == [process.pid]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_holder_whose_process_is_gone_is_taken_over_at_once(tmp_path: Path, number: signal.Signals) -> None:
    with other_process(tmp_path / "run") as process:
        process.send_signal(number)
        # Not waited for: a killed process whose parent has not looked is gone all the same.
        time.sleep(0.3)
        begun = time.monotonic()
        with Holding(open_run(str(tmp_path / "run")), "caption"):
            assert time.monotonic() - begun < 2
            assert len(list((tmp_path / "run").glob("holder-*"))) == 1


def test_a_process_that_has_the_number_of_a_dead_one_is_not_taken_for_it(tmp_path: Path) -> None:
    claim_of(tmp_path / "run", machine=holding._machine(), pid=os.getpid(), started=1.0)
    with Holding(open_run(str(tmp_path / "run")), "caption"):
        pass


def test_a_lease_that_has_run_out_is_taken_over_at_once(tmp_path: Path) -> None:
    claim_of(tmp_path / "run", renewed=time.time() - 61)
    begun = time.monotonic()
    with Holding(open_run(str(tmp_path / "run")), "caption"):
        assert time.monotonic() - begun < 1
        assert [claim.host for claim in holders(open_run(str(tmp_path / "run")))] != ["far"]


def test_a_holder_on_another_machine_that_is_silent_is_taken_over_when_its_lease_ends(tmp_path: Path) -> None:
    claim_of(tmp_path / "run", lease_s=1.5)
    begun = time.monotonic()
    with Holding(open_run(str(tmp_path / "run")), "caption"):
        assert 1.0 < time.monotonic() - begun < 5


def test_a_holder_on_another_machine_that_lives_is_not(tmp_path: Path) -> None:
    claim = claim_of(tmp_path / "run", lease_s=30.0)
    threading.Timer(0.6, claim_of, [tmp_path / "run"], {"lease_s": 30.0, "renewed": claim.renewed + 1}).start()
    begun = time.monotonic()
    with pytest.raises(RunHeld, match="process 1 on far"), Holding(open_run(str(tmp_path / "run")), "caption"):
        pass
    assert time.monotonic() - begun < 5
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["holder-f00.json"]


def test_a_living_holder_renews_its_lease(tmp_path: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    with Holding(run, "caption", lease_s=0.6):
        time.sleep(1.5)
        assert len(holders(run)) == 1


def test_who_was_taken_over_is_told(tmp_path: Path) -> None:
    told = threading.Event()
    with Holding(open_run(str(tmp_path / "run")), "caption", lease_s=0.6, lost=told.set) as held:
        for path in (tmp_path / "run").glob("holder-*"):
            path.unlink()
        assert told.wait(3)
        assert held.taken


def test_of_many_that_come_at_once_one_holds_the_run(tmp_path: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    inside, most, won = 0, 0, 0
    lock = threading.Lock()
    start = threading.Barrier(6)

    def claim() -> None:
        nonlocal inside, most, won
        start.wait()
        try:
            with Holding(run, "caption"):
                with lock:
                    inside, won = inside + 1, won + 1
                    most = max(most, inside)
                time.sleep(0.5)
                with lock:
                    inside -= 1
        except RunHeld:
            pass

    threads = [threading.Thread(target=claim) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert won >= 1


def test_a_job_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    with Holding(open_run(str(tmp_path / "run")), "caption"):
        assert (tmp_path / "run").exists()
    assert not (tmp_path / "run").exists()


def test_a_claim_that_is_damaged_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "holder-bad.json").write_text('{"id": ')
    with Holding(open_run(str(tmp_path / "run")), "caption"):
        pass
