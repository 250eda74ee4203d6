"""Which engine runs a checkpoint, where the profile leaves it open."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import NamedTuple

from caslie_ray.engines.spec import EngineSpec

__all__ = ["AUTO", "Chosen", "choose_engine"]

AUTO = "auto"


class Chosen(NamedTuple):
    """An engine, and why it is this one.

    Attributes:
        spec: what to load, with the name of an engine.
        reason: one clause for a person; empty where the profile named the engine.
    """

    spec: EngineSpec
    reason: str


def choose_engine(spec: EngineSpec) -> Chosen:
    """Settle on an engine: vLLM where it supports the checkpoint, transformers where it does not.

    The checkpoint is not loaded, but its settings are read; where vLLM was not imported before, that takes
    seconds. Both engines give the same answers, so the choice is no part of a fingerprint.
    """
    if spec.engine != AUTO:
        return Chosen(spec, "")
    if importlib.util.find_spec("vllm") is None:
        return Chosen(replace(spec, engine="transformers"), "vLLM is not installed")
    try:
        from caslie_ray.engines.vllm import refusal  # takes seconds to import
    except (ImportError, OSError) as error:  # built for another torch, or for drivers that are not here
        return Chosen(replace(spec, engine="transformers"), f"vLLM cannot be imported here: {error}")
    reason = refusal(spec)
    if reason is None:
        return Chosen(replace(spec, engine="vllm"), "vLLM supports it")
    return Chosen(replace(spec, engine="transformers"), reason)
