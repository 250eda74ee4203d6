"""One server for all tests of a process: three voters, and a base with a trained adapter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from ray import serve

from caslie_ray.fusion import fuse
from caslie_ray.profiles import Profile, load_profile
from caslie_ray.storage.run import Run
from caslie_ray.training import train
from tests.serving.server import Server, free_port, serving
from tests.worlds import InProcess, caption_here, fresh_run, voter

NAMES = ("llama-3b", "llama-8b", "vision")
TRAINING = [
    "training.variants=[caslie,text]",
    "training.num_workers={min: 1, max: 1}",
    "training.validations=1",
    "training.global_batch=8",
    "training.epochs=1",
    "training.learning_rate=0.01",
    "lineup.base.max_new_tokens=12",
]
LINEUP = [
    f"lineup.voters={json.dumps([voter(name) for name in NAMES])}",
    "lineup.captioner.resources.cpus=0.2",
    *TRAINING,
]
BODY_BYTES = 3_000_000
SETTINGS = [*LINEUP, "serving.max_items=4", f"serving.max_body_bytes={BODY_BYTES}", "images.max_bytes=1000000"]


def served_profile() -> Profile:
    return load_profile("mini", SETTINGS)


@pytest.fixture(scope="session")
def trained(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with two adapters, trained on the captions of the data set."""
    run = fresh_run(world, tmp_path_factory.mktemp("serving") / "run")
    profile = load_profile("mini", [*LINEUP, "captions.source=dataset", "votes.rule=always"])
    caption_here(run, profile, InProcess())
    fuse(run, profile, quiet=True)
    train(run, profile, quiet=True)
    return run


class _Shared:
    """The server, from its first test to the last one of this folder."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._server: Server | None = None

    def start(self, run: Run) -> Server:
        if self._server is None:
            self._server = self._open.enter_context(serving(SETTINGS, Path(run.root)))
        return self._server

    def stop(self) -> None:
        self._open.close()
        self._server = None


_shared = _Shared()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is None or not nextitem.nodeid.startswith("tests/serving/"):
        _shared.stop()


@pytest.fixture
def server(trained: Run) -> Server:
    return _shared.start(trained)


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with server.client() as opened:
        yield opened


@pytest.fixture
def url(ray_cluster: None) -> Iterator[str]:
    """The address of Serve on the cluster of the tests, without an application."""
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()
