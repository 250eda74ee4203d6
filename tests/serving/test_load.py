"""Concurrent clients: no error but 429, equal answers to equal questions, and a replica that is killed meanwhile."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from caslie_ray.storage.run import Run
from tests.serving.conftest import NAMES, SETTINGS
from tests.serving.load import Load, run_load
from tests.serving.server import Server, serving
from tests.serving.test_bad_requests import GOOD
from tests.serving.test_failures import replica_of

pytestmark = pytest.mark.timeout(600)

WORDS = ("good", "bad", "small", "late", "loud", "cheap", "heavy", "bright")


def question(number: int, run: str) -> dict[str, Any]:
    """One of 64 questions of a run: some repeat, some are new."""
    first, second = WORDS[number % 8], WORDS[number // 8 % 8]
    return {**GOOD, "fields": {"review": f"{run}: it is {first} and {second}."}, "probabilities": False}


def texts(load: Load) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for answer in load.answers:
        found.setdefault(answer["number"] % 64, set()).add(answer["text"])
    return found


def test_many_clients_get_answers(server: Server) -> None:
    load = run_load(server.url, lambda number: question(number, "short"), clients=16, seconds=8.0)
    assert set(load.statuses) <= {200, 429}, load.problems[:3]
    assert load.statuses[200] >= 16
    assert all(len(same) == 1 for same in texts(load).values())


def test_many_clients_for_two_minutes(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    load = run_load(server.url, lambda number: question(number, f"long {number // 64}"), clients=32, seconds=120.0)
    with capsys.disabled():
        print(f"\n{load.statuses[200] / 120:.1f} answers per second, {load.percentiles()}, {dict(load.statuses)}")
    assert set(load.statuses) <= {200, 429}, load.problems[:3]


def test_batches_beside_single_requests(trained: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The same load on the same models, with the batches of the profile and with batches of one."""
    models = ("base", "captioner", *(f"voters.{name}" for name in NAMES))
    found = {}
    for name, more in (("batches", []), ("single", [f"lineup.{model}.batch_size=1" for model in models])):
        with serving([*SETTINGS, *more], Path(trained.root)) as server:
            load = run_load(server.url, lambda number: question(number, f"{number // 64}"), clients=32, seconds=60.0)
        with capsys.disabled():
            print(f"\n{name}: {load.statuses[200] / 60:.1f} answers per second, {load.percentiles()}")
        assert set(load.statuses) <= {200, 429}, load.problems[:3]
        found[name] = texts(load)
    same = found["batches"].keys() & found["single"].keys()
    assert same
    assert all(found["batches"][number] == found["single"][number] for number in same)


def test_a_replica_that_is_killed_under_load_gives_no_wrong_answer(server: Server) -> None:
    before = run_load(server.url, lambda number: question(number, "killed"), clients=8, seconds=6.0)
    expected = texts(before)

    def kill() -> None:
        time.sleep(2.0)
        replica_of(server, "unim3").kill()

    killing = threading.Thread(target=kill)
    killing.start()
    # Other instructions: the answers of the first load are cached.
    load = run_load(
        server.url, lambda number: {**question(number, "killed"), "timeout_s": 60.0, "model": "text"}, 8, 25.0
    )
    killing.join()
    assert set(load.statuses) <= {200, 503, 504}, load.problems[:3]
    assert all(len(same) == 1 for same in texts(load).values())
    assert load.statuses[503] + load.statuses[504] <= load.statuses[200]
    after = run_load(server.url, lambda number: question(number, "killed"), clients=4, seconds=3.0)
    assert all(expected.get(number, same) == same for number, same in texts(after).items())
    assert psutil.pid_exists(server.process.pid)
