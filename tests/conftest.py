"""Shared fixtures (one Ray per process, a small run), the markers `verify` and `faults`, and the order of files."""

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
from tests.long_tests import COLLECTED, file_seconds, in_check_faults, is_long
from tests.worlds import draw, profile


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[COLLECTED] = [item.nodeid for item in items]
    for item in items:
        if is_long(item.nodeid):
            item.add_marker(pytest.mark.verify)
        if in_check_faults(item.nodeid):
            item.add_marker(pytest.mark.faults)

    # Two processes distribute by file: long files first, so that both end at about the same time.
    # One process: long files last, so that errors of short tests show early.
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    seconds = {path: file_seconds(path, config.option.markexpr) for path in {_file(item) for item in items}}
    items.sort(key=lambda item: seconds[_file(item)], reverse=parallel)


def _file(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0]


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
    """A Ray of this machine: 2 CPUs and one declared GPU that does not exist."""
    # The user's own cluster may run on this machine.
    ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    quiet_ray_data()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def world(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with samples, images and views of a small drawn data set. Copy it before writing to it."""
    folder = tmp_path_factory.mktemp("world")
    source = draw(folder / "source")
    ingest(open_run(str(folder / "run")), [str(source)], profile())
    return folder / "run"
