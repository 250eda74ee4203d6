"""Shared fixtures (one Ray per process, a small run), the markers `verify` and `faults`, and the order of files."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import ray
from filelock import FileLock

from caslie_ray.cluster.connection import quiet_ray_data
from caslie_ray.dataset import ingest
from caslie_ray.storage.run import open_run
from tests.long_tests import COLLECTED, file_seconds, in_check_faults, is_long, scope_of
from tests.worlds import draw, profile


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    config.stash[COLLECTED] = [item.nodeid for item in items]
    for item in items:
        if is_long(item.nodeid):
            item.add_marker(pytest.mark.verify)
        if in_check_faults(item.nodeid):
            item.add_marker(pytest.mark.faults)

    # Two processes distribute by scope: long ones first, so that both end at about the same time.
    # One process: long ones last, so that errors of short tests show early.
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    seconds: dict[str, float] = defaultdict(float)
    for path in {item.nodeid.partition("::")[0] for item in items}:
        seconds[scope_of(path)] += file_seconds(path, config.option.markexpr)
    items.sort(key=lambda item: (seconds[scope_of(item.nodeid)], scope_of(item.nodeid)), reverse=parallel)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Run the tests of a scope in one process."""
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

    if config.getvalue("dist") != "loadfile":
        return None
    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = scope_of
    return scheduler


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
