"""Which engine runs a checkpoint, where the profile leaves it open."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import replace
from typing import NamedTuple

from caslie_ray.engines.spec import EngineSpec

__all__ = ["AUTO", "Chosen", "choose_engine"]

log = logging.getLogger(__name__)

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
    """Choose an engine: vLLM where it supports the checkpoint and its settings, transformers where it does not.

    The checkpoint is not loaded, but its settings are read; where vLLM was not imported before, that takes
    seconds. Both engines give the same answers, so the choice is no part of a fingerprint.

    Raises:
        EngineError: the checkpoint cannot be read, with whichever engine.
    """
    if spec.engine != AUTO:
        return Chosen(spec, "")
    if importlib.util.find_spec("vllm") is None:
        return _without(spec, "vLLM is not installed")
    try:
        from caslie_ray.engines.vllm import refusal  # takes seconds to import
    except (ImportError, OSError) as error:  # built for another torch, or for drivers that are not here
        return _without(spec, f"vLLM cannot be imported here: {error}")
    reason = refusal(spec)
    if reason is None:
        return Chosen(replace(spec, engine="vllm"), "vLLM supports it")
    return Chosen(replace(spec, engine="transformers"), reason)


def _without(spec: EngineSpec, reason: str) -> Chosen:
    """Transformers, for want of vLLM itself."""
    if spec.gpus > 0 or spec.device.startswith("cuda"):
        log.warning(
            "%s runs on transformers, which is several times slower on a GPU: %s; pip install '.[vllm]'",
            spec.checkpoint, reason,
        )  # fmt: skip
    return Chosen(replace(spec, engine="transformers"), reason)
