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
from filelock import FileLock

from caslie_ray.cluster.connection import quiet_ray_data
from caslie_ray.dataset import ingest
from caslie_ray.storage.run import open_run
from tests.worlds import draw, profile

_LONG_FIRST = ("chaos", "vllm", "cluster")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: `make test` hands files to two processes, and neither shall begin a long one at the end."""
    kinds: dict[Path, set[str]] = {}
    for item in items:
        kinds.setdefault(item.path, set()).update(mark.name for mark in item.iter_markers())
    place = {path: [kind not in marks for kind in _LONG_FIRST] for path, marks in kinds.items()}
    items.sort(key=lambda item: place[item.path])


@pytest.fixture(autouse=True)
def _one_vllm_at_a_time(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests of vLLM count its processes on the machine."""
    if request.node.get_closest_marker("vllm") is None:
        yield
        return
    with FileLock(tmp_path_factory.getbasetemp().parent / "vllm.lock"):
        yield


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A Ray of this machine: 2 CPUs and, declared but not there, one GPU."""
    # A cluster of the user's own may run on this machine.
    ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    quiet_ray_data()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def world(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that holds samples, images and views of a small drawn data set. Copy it before writing to it."""
    folder = tmp_path_factory.mktemp("world")
    source = draw(folder / "source")
    ingest(open_run(str(folder / "run")), [str(source)], profile())
    return folder / "run"
