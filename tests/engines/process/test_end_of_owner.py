"""No process is left when the owner or the engine ends, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from caslie_ray.engines import EngineSpec, Request
from caslie_ray.engines.process import EngineProcess, ProcessLimits
from caslie_ray.prompts import Prompt
from tests.engines.process import fakes

MARK = "CASLIE_TEST_MARK"


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[str]:
    """A variable that every descendant inherits, by which they are found; what is left at the end is killed."""
    yield str(tmp_path)
    for pid in marked(str(tmp_path)):
        os.kill(pid, signal.SIGKILL)


def marked(mark: str) -> list[int]:
    """Process ids of those who have the mark, zombies left out."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def until_none_is_left(mark: str, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while left := marked(mark):
        assert time.monotonic() < deadline, [psutil.Process(pid).cmdline() for pid in left]
        time.sleep(0.05)


def owner(mark: str, command: str) -> tuple[subprocess.Popen[str], int]:
    """An owner, and the process id of its engine."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.engines.process.owner", command],
        env={**os.environ, MARK: mark, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("command", ["wait", "hang"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_of_an_owner_that_is_killed(mark: str, command: str, number: int) -> None:
    process, engine = owner(mark, command)
    # The owner, the keeper, the engine, its child, one in a session of its own, and an orphan.
    assert len(marked(mark)) == 6
    assert engine in marked(mark)
    process.send_signal(number)
    process.wait(10)
    until_none_is_left(mark)


def test_nothing_is_left_of_an_owner_that_exits(mark: str) -> None:
    process, _ = owner(mark, "exit")
    assert process.wait(10) == 0
    until_none_is_left(mark)


def test_the_engine_ends_with_its_parent_process(mark: str) -> None:
    process, engine = owner(mark, "wait")
    keeper = psutil.Process(engine).ppid()
    assert keeper != process.pid, "Ray kills the children of an actor that it ends"
    os.kill(keeper, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while engine in marked(mark):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()


@pytest.mark.parametrize("command", ["exit", "kill", "hang"])
def test_nothing_is_left_of_an_engine_that_ends(mark: str, command: str) -> None:
    spec, limits = EngineSpec("phi-4", fakes.ENGINE), ProcessLimits(call_timeout_s=2.0)
    process = EngineProcess(spec, limits, environment={MARK: mark})
    process.generate([Request("0", Prompt("orphans"))])
    before = set(marked(mark))
    assert len(before) == 5
    process.generate([Request("0", Prompt(command))])
    process.generate([Request("0", Prompt("a"))])
    assert not before & set(marked(mark))
    process.generate([Request("0", Prompt("orphans"))])
    process.close()
    until_none_is_left(mark)
