from __future__ import annotations

from dataclasses import replace

import pytest

from caslie_ray.cluster.capacity import cluster_limits
from caslie_ray.cluster.connection import Connection
from caslie_ray.errors import PoolDown
from caslie_ray.pipeline.placement import PoolPlan, pool_plans, refuse_what_cannot_fit, size_pools
from caslie_ray.profiles import load_profile
from caslie_ray.roles import resolve


def plan(name: str, cpus: float = 0.0, gpus: float = 0.0, minimum: int = 1) -> PoolPlan:
    spec = load_profile("mini").lineup.captioner.spec()
    return PoolPlan(name, name, spec, cpus, gpus, 0.0, minimum, minimum)


HERE = Connection(joined=False)
"""The Ray of the tests: 2 CPUs and a GPU."""


def test_the_mini_lineup_has_a_pool_a_model_and_fits_two_cores(ray_cluster: None) -> None:
    plans = pool_plans(resolve(load_profile("mini")).roles)
    assert plans[0].name == "captioner"
    assert len(plans) == 6
    refuse_what_cannot_fit(plans, HERE)


def test_shares_of_a_gpu_add_up(ray_cluster: None) -> None:
    five = [plan(f"voter-{number}", gpus=0.2) for number in range(5)]
    refuse_what_cannot_fit(five, HERE)
    with pytest.raises(PoolDown, match=r"1\.2 GPUs are needed and this machine has 1; run one model at a time"):
        refuse_what_cannot_fit([*five, plan("captioner", gpus=0.2)], HERE)


def test_a_model_that_alone_is_too_large_is_not_advised_to_run_staged(ray_cluster: None) -> None:
    with pytest.raises(PoolDown, match="vision: 8 CPUs are needed and this machine has 2; lower resources") as refused:
        refuse_what_cannot_fit([plan("vision", cpus=4, minimum=2)], HERE)
    assert "staged" not in str(refused.value)


def test_a_joined_cluster_is_not_refused_for_an_optional_model(
    ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = cluster_limits(HERE)
    monkeypatch.setattr("caslie_ray.cluster.capacity.cluster_limits", lambda connection, file: here)
    optional = replace(plan("llama-8b", gpus=2.0), needed=False)
    refuse_what_cannot_fit([plan("captioner"), optional], Connection(joined=True))
    for refused, connection in ((replace(optional, needed=True), Connection(joined=True)), (optional, HERE)):
        with pytest.raises(PoolDown, match="llama-8b: "):
            refuse_what_cannot_fit([plan("captioner"), refused], connection)


def endless(name: str, cpus: float = 1.0, gpus: float = 1.0, batch: int = 16, engine: str = "transformers") -> PoolPlan:
    """A pool without an upper limit."""
    one = plan(name, cpus, gpus)
    return replace(one, maximum=None, spec=replace(one.spec, batch_size=batch, engine=engine))


MANY = 10**9


@pytest.mark.parametrize(
    ("limits", "replicas"),
    [
        ({"CPU": 128.0, "GPU": 8.0}, 8),
        ({"CPU": 5.0, "GPU": 8.0}, 5),
        ({"CPU": 128.0, "GPU": 0.0}, 1),  # its minimum: `refuse_what_cannot_fit` checks that
        (None, 64),
    ],
)
def test_a_pool_without_limit_takes_what_the_cluster_can_have(limits: dict[str, float] | None, replicas: int) -> None:
    assert [one.maximum for one in size_pools([endless("captioner")], MANY, limits)] == [replicas]


def test_replicas_are_counted_exactly_for_fractions_of_gpus() -> None:
    (sized,) = size_pools([endless("phi", gpus=0.1)], MANY, {"CPU": 64.0, "GPU": 3.0})
    assert sized.maximum == 30


def test_unknown_memory_is_no_limit() -> None:
    pool = replace(endless("captioner"), memory_gib=8.0)
    assert size_pools([pool], MANY, {"CPU": 64.0, "GPU": 10.0})[0].maximum == 10
    assert size_pools([pool], MANY, {"CPU": 64.0, "GPU": 10.0, "memory": 22.0 * 2**30})[0].maximum == 2


@pytest.mark.parametrize(("rows", "replicas"), [(1, 1), (16, 1), (17, 2), (100, 7), (10**6, 8)])
def test_no_replica_is_started_for_less_than_a_batch(rows: int, replicas: int) -> None:
    (sized,) = size_pools([endless("captioner")], rows, {"CPU": 64.0, "GPU": 8.0})
    assert sized.maximum == replicas


def test_an_engine_that_takes_several_batches_at_once_is_given_them() -> None:
    (sized,) = size_pools([endless("phi", engine="vllm")], 1000, {"CPU": 64.0, "GPU": 64.0})
    assert sized.maximum == 16  # 1,000 rows in batches of 16, four at a time


def test_the_captioner_gets_what_voters_leave() -> None:
    limits = {"CPU": 64.0, "GPU": 8.0}
    voters = [endless("phi", gpus=0.25), replace(plan("mistral", 1.0, 0.25), maximum=3)]
    sized = size_pools([endless("captioner"), *voters], MANY, limits)
    assert [one.maximum for one in sized] == [7, 1, 3]
    used = sum(one.limit * one.gpus for one in sized)
    assert 7 < used <= 8


def test_a_pool_with_a_maximum_keeps_it() -> None:
    limited = replace(plan("phi", gpus=1.0), maximum=5)
    assert size_pools([limited], 1, {"GPU": 2.0}) == [limited]
