"""Tiny checkpoints, made when a test asks for one, and engines on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from caslie_ray.engines import EngineSpec
from caslie_ray.engines.transformers import TransformersEngine
from tests.engines import tiny

MakeCheckpoint = Callable[[str], Path]
MakeEngine = Callable[[str], TransformersEngine]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """The folder of the tiny checkpoint of a family; do not write in it."""
    torch.set_num_threads(1)
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tiny.build(name, tmp_path_factory.mktemp(name, numbered=False))
        return made[name]

    return make


@pytest.fixture(scope="session")
def engine(checkpoint: MakeCheckpoint) -> Iterator[MakeEngine]:
    """The engine of a family, shared by all tests; do not close it or change it."""
    loaded: dict[str, TransformersEngine] = {}

    def make(name: str) -> TransformersEngine:
        if name not in loaded:
            loaded[name] = TransformersEngine(tiny_spec(checkpoint(name)))
        return loaded[name]

    yield make
    for one in loaded.values():
        one.close()


def tiny_spec(folder: Path | str, **settings: object) -> EngineSpec:
    """A spec that suits the tiny checkpoints, changed by `settings`."""
    chosen: dict[str, object] = {
        "context": 512,
        "max_new_tokens": 8,
        "batch_size": 4,
        "device": "cpu",
        **settings,
    }
    return EngineSpec(str(folder), **chosen)  # type: ignore[arg-type]  # settings of any name, checked by the spec
