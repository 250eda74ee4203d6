"""vLLM's engine arguments for a checkpoint, for other programs that start vLLM, such as `ray.data.llm`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from caslie_ray.engines._preprocessor import load_preprocessor
from caslie_ray.engines._source import find_source
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.engines.vllm._settings import engine_settings

__all__ = ["EngineArguments", "engine_arguments"]


class EngineArguments(NamedTuple):
    """Arguments that start vLLM on a checkpoint.

    Attributes:
        location: the checkpoint's folder.
        settings: keyword arguments of vLLM's `EngineArgs` that differ from its defaults.
        choice_ids: for each choice, ids of the tokens that its answer may begin with.
    """

    location: str
    settings: dict[str, Any]
    choice_ids: tuple[tuple[int, ...], ...]


def engine_arguments(spec: EngineSpec, choices: Sequence[str]) -> EngineArguments:
    """Return the arguments with which `VllmEngine` starts vLLM, without loading the model.

    Raises:
        EngineError: the checkpoint cannot be found or read, or a choice has no first token of its own.
    """
    source = find_source(spec)
    preprocessor = load_preprocessor(spec, source)
    arguments = engine_settings(spec, source, preprocessor, [])
    defaults = vars(type(arguments)(model=source.location))
    settings = {name: value for name, value in vars(arguments).items() if name != "model" and value != defaults[name]}
    return EngineArguments(source.location, settings, preprocessor.first_token_ids(choices))
