"""Tasks that decode images ask Ray for the memory they use."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from caslie_ray.cluster.partition_map import map_partitions
from caslie_ray.dataset._fetching import task_memory
from caslie_ray.dataset._ray import each_of_stream
from caslie_ray.profiles import ImageSettings


def memory() -> float:
    return float(ray.get_runtime_context().get_assigned_resources().get("memory", 0.0))


def assigned(item: int) -> float:
    return memory()


def reader_memory(item: int) -> Iterator[float]:
    yield memory()


def both(reader: float) -> tuple[float, float]:
    return reader, memory()


def interval(item: int) -> tuple[float, float]:
    begun = time.time()
    time.sleep(0.5)
    return begun, time.time()


def test_a_task_asks_for_what_it_uses(ray_cluster: None) -> None:
    wanted = 100 << 20
    assert (
        list(map_partitions(assigned, [1, 2], distributed=True, concurrency=2, num_cpus=0.5, memory=wanted))
        == [wanted] * 2
    )
    found = each_of_stream([1, 2], reader_memory, both, concurrency=2, memory=2 * wanted, part_memory=wanted)
    assert list(found) == [(2 * wanted, wanted)] * 2


def test_a_task_asks_for_no_more_than_a_node_has(ray_cluster: None) -> None:
    """So that it runs on a small machine, alone."""
    spans = sorted(map_partitions(interval, [1, 2, 3], distributed=True, concurrency=2, num_cpus=0.5, memory=1 << 50))
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))


def waiting_reader(marker: str) -> Iterator[tuple[str, bytes]]:
    """Yield a part as large as a block, then wait until it was worked on."""
    yield marker, bytes(5 << 20)
    deadline = time.monotonic() + 20
    while not Path(marker).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    yield f"{marker} while it read: {Path(marker).exists()}", b""


def touch(part: tuple[str, bytes]) -> str:
    Path(part[0]).touch()
    return part[0]


@pytest.mark.parametrize("memory", [100 << 20, 1 << 50])
def test_a_waiting_reader_leaves_memory_for_the_work_on_its_parts(
    ray_cluster: None, tmp_path: Path, memory: int
) -> None:
    marker = str(tmp_path / "done")
    found = each_of_stream([marker], waiting_reader, touch, concurrency=1, memory=memory, part_memory=1 << 50)
    assert f"{marker} while it read: True" in list(found)


def test_memory_follows_the_settings() -> None:
    limits = ImageSettings(max_memory=10**9, max_bytes=10**7)
    assert task_memory(limits, files=16) - task_memory(limits, files=1) == 15 * 10**7
    assert task_memory(limits, files=0) > 10**9
