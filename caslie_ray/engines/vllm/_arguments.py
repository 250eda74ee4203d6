"""The arguments of vLLM's engine for a checkpoint, for other programs that start it, such as `ray.data.llm`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from caslie_ray.engines._reader import find_source, load_reader
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.engines.vllm._support import engine_settings

__all__ = ["EngineArguments", "engine_arguments"]


class EngineArguments(NamedTuple):
    """What starts vLLM on a checkpoint.

    Attributes:
        location: the folder of the checkpoint.
        settings: keyword arguments of vLLM's `EngineArgs` that differ from its defaults.
        choice_ids: ids of the tokens that an answer of each choice may begin with.
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
    reader = load_reader(spec, source)
    arguments = engine_settings(spec, source, reader, [])
    defaults = vars(type(arguments)(model=source.location))
    settings = {name: value for name, value in vars(arguments).items() if name != "model" and value != defaults[name]}
    return EngineArguments(source.location, settings, reader.first_token_ids(choices))
