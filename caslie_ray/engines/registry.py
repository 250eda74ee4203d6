"""Engines by name. A new engine is one module and one line in `ENGINES`."""

from __future__ import annotations

import importlib
import re
from typing import NamedTuple

from caslie_ray.engines._base import Engine
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.errors import EngineError

__all__ = ["AUTO", "ENGINES", "Registered", "check_name", "load_engine", "overlap"]


class Registered(NamedTuple):
    """An engine of this package.

    Attributes:
        module: has `load(spec) -> Engine`; imported on first use, since it imports a large library.
        overlap: number of threads that may call one engine concurrently.
    """

    module: str
    overlap: int = 1


ENGINES = {
    "transformers": Registered("caslie_ray.engines.transformers"),
    "vllm": Registered("caslie_ray.engines.vllm", overlap=4),
}
AUTO = "auto"
"""In a profile: vLLM if it supports the checkpoint, otherwise transformers; see `selection`."""
_USER_DEFINED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def check_name(name: str) -> str:
    """Return an engine name from a profile if it is valid.

    Raises:
        ValueError: there is no such engine; the message lists the known ones.
    """
    if name in (AUTO, *ENGINES) or _USER_DEFINED.fullmatch(name):
        return name
    raise ValueError(_unknown(name, AUTO))


def load_engine(spec: EngineSpec) -> Engine:
    """Load a checkpoint on the engine that its spec names.

    A user-defined engine is named ``module:function``, where the function is its `load(spec) -> Engine`.

    Raises:
        EngineError: there is no such engine, or the checkpoint cannot be loaded; the message names it.
    """
    module, _, function = spec.engine.partition(":")
    if not function:
        if module not in ENGINES:
            raise EngineError(_unknown(module))
        module, function = ENGINES[module].module, "load"
    try:
        imported = importlib.import_module(module)
    except (ImportError, AttributeError) as error:
        raise EngineError(f"engine {spec.engine!r} cannot be imported: {error}") from error
    load = getattr(imported, function, None)
    if load is None:
        raise EngineError(
            f"engine {spec.engine!r} cannot be imported: {module} has no {function!r}; name one of its functions"
        )
    engine: Engine = load(spec)
    return engine


def overlap(engine: str) -> int:
    """Return how many threads may call one engine of that name concurrently."""
    return ENGINES[engine].overlap if engine in ENGINES else 1


def _unknown(name: str, *others: str) -> str:
    known = ", ".join((*others, *ENGINES))
    return f"there is no engine {name!r}; there are: {known}, and your own as module:function"
