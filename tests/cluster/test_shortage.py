from __future__ import annotations

import math

import pytest

from caslie_ray.cluster.shortage import Limits, Need, NodeGroup, find_shortage

GIB = 2.0**30


def nodes(*amounts: tuple[float, float], count: float = 1) -> Limits:
    """Nodes of so many CPUs and GPUs."""
    return Limits([NodeGroup({"CPU": cpus, "GPU": gpus}, count) for cpus, gpus in amounts], "the cluster has")


@pytest.mark.parametrize(
    ("limits", "need", "reason"),
    [
        (nodes((8, 1), (8, 1)), Need("m", {"GPU": 1.0}, 2), None),
        (nodes((8, 1), (8, 1)), Need("m", {"GPU": 1.0}, 3), "m: 3 GPUs are needed and the cluster has 2"),
        # The sum is there, and no node has it.
        (
            nodes((8, 1), (8, 1)), Need("m", {"GPU": 2.0}),
            "m: each takes 2 GPUs of one node, and no node has that: the cluster has nodes of 1 GPUs",
        ),
        # One node has the GPU, another the CPUs.
        (
            nodes((2, 1), (16, 0)), Need("m", {"CPU": 4.0, "GPU": 1.0}),
            "m: each takes 4 CPUs and 1 GPUs of one node, and no node has that: the cluster has nodes of 16 CPUs and"
            " 0 GPUs; nodes of 2 CPUs and 1 GPUs",
        ),
        # Shares of a GPU do not reach over to another one.
        (
            nodes((8, 2)), Need("m", {"GPU": 0.6}, 3),
            "m: 3 replicas of 0.6 GPUs are needed and the cluster has room for 2",
        ),
        (nodes((8, 1)), Need("m", {"GPU": 0.2}, 5), None),
        (nodes((0.3, 0)), Need("m", {"CPU": 0.1}, 3), None),
        # As many nodes as one likes, but no larger ones.
        (nodes((8, 4), count=math.inf), Need("m", {"GPU": 4.0}, 1000), None),
        (
            nodes((8, 4), count=math.inf), Need("m", {"GPU": 8.0}),
            "m: each takes 8 GPUs of one node, and no node has that: the cluster has nodes of 4 GPUs",
        ),
        (nodes((8, 4), count=0), Need("m", {"GPU": 1.0}), "m: 1 GPUs are needed and the cluster has 0"),
        (Limits([], "the cluster has"), Need("m", {"CPU": 1.0}), "m: 1 CPUs are needed and the cluster has 0"),
        (nodes((1, 0)), Need("m", {"CPU": 0.0, "GPU": 0.0}, 9), None),
    ],
)  # fmt: skip
def test_what_fits_and_what_never_does(limits: Limits, need: Need, reason: str | None) -> None:
    found = find_shortage([need], limits)
    assert (None if found is None else found.reason) == reason
    assert found is None or not found.alone


def test_memory_counts_where_it_is_known() -> None:
    need = [Need("m", {"memory": 20 * GIB})]
    found = find_shortage(need, Limits([NodeGroup({"memory": 16 * GIB})], "this machine has"))
    assert found is not None
    assert found.reason == "m: 20 GiB of memory are needed and this machine has 16"
    assert find_shortage(need, Limits([NodeGroup({}, unlisted=frozenset({"memory"}))], "the cluster has")) is None


def test_models_that_fit_only_one_at_a_time_are_distinguished() -> None:
    two = [Need("a", {"GPU": 1.0}), Need("b", {"GPU": 1.0})]
    found = find_shortage(two, nodes((8, 1)))
    assert found is not None
    assert found.alone
    assert found.reason == "a, b: 2 GPUs are needed and the cluster has 1"
