"""The parallel map: the same results in this process and as tasks, named errors, and a bound on retries."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import ray

from caslie_ray.cluster.partition_map import WorkersLost, map_partitions
from caslie_ray.errors import RunError

DISTRIBUTED = pytest.mark.parametrize("distributed", [False, True])


class Damaged(RunError):
    """An exception that does not unpickle from its message alone."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


def length(item: str) -> int:
    return len(item)


def refuse(item: str) -> int:
    if item == "bad":
        raise RunError("it cannot be read")
    return len(item)


def refuse_oddly(item: str) -> int:
    raise Damaged(item, "it is damaged")


def tries_of(folder: Path, name: str) -> int:
    return len(list(folder.glob(f"{name}-*")))


@DISTRIBUTED
def test_every_item_has_its_result(ray_cluster: None, distributed: bool) -> None:
    items = ["a" * count for count in range(20)]
    assert sorted(map_partitions(length, items, distributed=distributed)) == list(range(20))
    assert list(map_partitions(length, [], distributed=distributed)) == []


@DISTRIBUTED
def test_an_error_keeps_its_type_and_names_its_item(ray_cluster: None, distributed: bool) -> None:
    with pytest.raises(RunError, match="it cannot be read") as caught:
        list(map_partitions(refuse, ["good", "bad"], distributed=distributed))
    assert str(caught.value) == "it cannot be read"
    assert caught.value.__notes__ == ["while working on bad"]


def test_an_error_that_does_not_pickle_is_raised_as_text(ray_cluster: None) -> None:
    with pytest.raises(RuntimeError, match="Damaged: part-1: it is damaged"):
        list(map_partitions(refuse_oddly, ["part-1"], distributed=True))


@pytest.mark.chaos
def test_a_worker_that_dies_is_tried_again_a_bounded_number_of_times(ray_cluster: None, tmp_path: Path) -> None:
    def work(item: tuple[str, int]) -> str:
        name, deaths = item
        tries = tries_of(tmp_path, name)
        (tmp_path / f"{name}-{tries}").touch()
        if tries < deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return name

    found = map_partitions(work, [("well", 0), ("once", 1), ("always", 99)], distributed=True, retries=2)
    assert {next(found), next(found)} == {"well", "once"}
    with pytest.raises(WorkersLost, match=r"1 tasks ended with their worker process \(always\)") as caught:
        next(found)
    assert caught.value.items == [2]
    assert [tries_of(tmp_path, name) for name in ("well", "once", "always")] == [1, 2, 3]


def test_a_caller_that_stops_early_leaves_no_task_behind(ray_cluster: None, tmp_path: Path) -> None:
    def work(item: int) -> int:
        for number in range(3000 if item else 0):
            (tmp_path / str(item)).write_text(str(number))
            time.sleep(0.1)
        return item

    def progress() -> dict[str, str]:
        return {path.name: path.read_text() for path in tmp_path.iterdir()}

    found = map_partitions(work, list(range(4)), distributed=True, num_cpus=0.1)
    assert next(found) == 0
    found.close()  # type: ignore[attr-defined]
    assert ray.get(ray.remote(num_cpus=0.1)(length).remote("ab")) == 2
    deadline = time.monotonic() + 120
    before, now = {"": ""}, progress()
    while before != now:
        assert time.monotonic() < deadline, "a task still works"
        time.sleep(1)
        before, now = now, progress()
