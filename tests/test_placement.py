from __future__ import annotations

import pytest

from caslie_ray.lineup import resolve
from caslie_ray.placement import PoolDown, PoolPlan, pool_plans, refuse_what_cannot_fit
from caslie_ray.profiles import load_profile


def plan(name: str, cpus: float = 0.0, gpus: float = 0.0, minimum: int = 1) -> PoolPlan:
    spec = load_profile("mini").lineup.captioner.spec()
    return PoolPlan(name, name, spec, cpus, gpus, 0.0, minimum, minimum)


def test_the_mini_lineup_has_a_pool_a_model_and_fits_two_cores() -> None:
    plans = pool_plans(resolve(load_profile("mini")).roles)
    assert plans[0].name == "captioner"
    assert len(plans) == 6
    refuse_what_cannot_fit(plans, {"CPU": 2.0})


def test_shares_of_a_gpu_add_up() -> None:
    five = [plan(f"voter-{number}", gpus=0.2) for number in range(5)]
    refuse_what_cannot_fit(five, {"GPU": 1.0})
    with pytest.raises(PoolDown, match=r"1\.2 GPUs are needed and this machine has 1; run one model at a time"):
        refuse_what_cannot_fit([*five, plan("captioner", gpus=0.2)], {"GPU": 1.0})


def test_a_model_that_alone_is_too_large_is_not_told_to_run_alone() -> None:
    with pytest.raises(PoolDown, match="vision: 8 CPUs are needed and this machine has 2") as refused:
        refuse_what_cannot_fit([plan("vision", cpus=4, minimum=2)], {"CPU": 2.0})
    assert "staged" not in str(refused.value)
