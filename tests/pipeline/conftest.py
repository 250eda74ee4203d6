"""Chains for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from caslie_ray.pipeline.placement import PoolPlan
from tests.chains import Lab, plan, replicas
from tests.clusters import until


@pytest.fixture
def make(ray_cluster: None, tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    labs: list[Lab] = []

    def start(*plans: PoolPlan, **faults: Any) -> Lab:
        labs.append(Lab(tmp_path / f"run{len(labs)}", plans or (plan("phi"),), **faults))
        return labs[-1]

    yield start
    for lab in labs:
        ray.kill(lab.monitor)
    # Replicas of a chain end by themselves: a test that leaves one spoils the next.
    until(lambda: not replicas(), 60, "replicas to end")
