"""What tests share: one Ray for the session, and a drawn data set read into a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import ray

from caslie_ray.cluster import quieten
from caslie_ray.dataset import ingest
from caslie_ray.runs import open_run
from tests.worlds import draw, profile


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray of this machine: 2 CPUs and, declared but not there, one GPU."""
    # A cluster of the user's own may run on this machine.
    ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    quieten()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def world(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that holds samples, images and views of a small drawn data set. Copy it before writing to it."""
    folder = tmp_path_factory.mktemp("world")
    source = draw(folder / "source")
    ingest(open_run(str(folder / "run")), [str(source)], profile())
    return folder / "run"
