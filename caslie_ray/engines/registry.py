"""Engines by name. A new engine is one module and one line here."""

from __future__ import annotations

import importlib

from caslie_ray.engines.base import Engine, EngineError
from caslie_ray.engines.spec import EngineSpec

__all__ = ["ENGINES", "load_engine"]

# Each module has `load(spec) -> Engine`. They are imported when used: each brings a large library with it.
ENGINES = {"transformers": "caslie_ray.engines.transformers"}


def load_engine(spec: EngineSpec) -> Engine:
    """Load a checkpoint on the engine that its spec names.

    Raises:
        EngineError: there is no such engine, or the checkpoint cannot be loaded; the message names it.
    """
    if spec.engine not in ENGINES:
        raise EngineError(f"there is no engine {spec.engine!r}; there are: {', '.join(ENGINES)}")
    engine: Engine = importlib.import_module(ENGINES[spec.engine]).load(spec)
    return engine
