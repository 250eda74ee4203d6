"""Engines by name. A new engine is one module and one line here."""

from __future__ import annotations

import importlib

from caslie_ray.engines.base import Engine, EngineError
from caslie_ray.engines.spec import EngineSpec

__all__ = ["ENGINES", "load_engine", "overlap"]

# Each module has `load(spec) -> Engine`. They are imported when used: each brings a large library with it.
ENGINES = {"transformers": "caslie_ray.engines.transformers", "vllm": "caslie_ray.engines.vllm"}
# Calls that one engine answers together; all others answer one at a time.
_OVERLAP = {"vllm": 4}


def load_engine(spec: EngineSpec) -> Engine:
    """Load a checkpoint on the engine that its spec names.

    An engine from outside this package is named ``module:function``, where the function is such a `load`.

    Raises:
        EngineError: there is no such engine, or the checkpoint cannot be loaded; the message names it.
    """
    module, _, function = spec.engine.partition(":")
    if not function:
        if module not in ENGINES:
            raise EngineError(f"there is no engine {module!r}; there are: {', '.join(ENGINES)}, module:function")
        module, function = ENGINES[module], "load"
    try:
        load = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise EngineError(f"engine {spec.engine!r} cannot be imported: {error}") from error
    engine: Engine = load(spec)
    return engine


def overlap(engine: str) -> int:
    """How many threads may ask one engine of that name at once."""
    return _OVERLAP.get(engine, 1)
