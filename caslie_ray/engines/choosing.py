"""Which engine runs a checkpoint, where the profile leaves it open."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from typing import NamedTuple

from caslie_ray.engines.spec import EngineSpec, LoraShape

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


def choose_engine(spec: EngineSpec, lora: LoraShape | None = None) -> Chosen:
    """Choose an engine: vLLM where it supports the checkpoint and its adapters, transformers where it does not.

    The checkpoint is not loaded, but its settings are read; where vLLM was not imported before, that takes
    seconds. Both engines give the same answers, so the choice is no part of a fingerprint.

    Args:
        spec: the checkpoint and how to run it.
        lora: shape of the adapters that the engine will load; None for the checkpoint alone.

    Raises:
        EngineError: the spec names vLLM, and vLLM cannot apply such adapters; the message says what to set.
    """
    if spec.engine == "vllm" and lora is not None:
        return Chosen(spec, _named_vllm(spec, lora))
    if spec.engine != AUTO:
        return Chosen(spec, "")
    if importlib.util.find_spec("vllm") is None:
        return Chosen(replace(spec, engine="transformers"), "vLLM is not installed")
    try:
        from caslie_ray.engines.vllm import adaptation, refusal  # takes seconds to import
    except (ImportError, OSError) as error:  # built for another torch, or for drivers that are not here
        return Chosen(replace(spec, engine="transformers"), f"vLLM cannot be imported here: {error}")
    reason = refusal(spec, lora)
    if reason is None:
        return Chosen(replace(spec, engine="vllm"), "vLLM supports it" if lora is None else adaptation(spec, lora))
    return Chosen(replace(spec, engine="transformers"), reason)


def _named_vllm(spec: EngineSpec, lora: LoraShape) -> str:
    """How the vLLM that the profile names will apply adapters; empty where this machine has no vLLM to ask."""
    try:
        from caslie_ray.engines.vllm import adaptation  # takes seconds to import
    except (ImportError, OSError):  # the machines that run it may well have it
        return ""
    return adaptation(spec, lora)
