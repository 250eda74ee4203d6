"""Selects the engine of a checkpoint with `engine: auto`."""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import replace
from typing import NamedTuple

from caslie_ray.engines.registry import AUTO
from caslie_ray.engines.spec import EngineSpec, LoraShape
from caslie_ray.errors import EngineError

__all__ = ["AUTO", "Chosen", "choose_engine"]

log = logging.getLogger(__name__)


class Chosen(NamedTuple):
    """An engine, and why it was chosen.

    Attributes:
        spec: what to load, with the name of an engine.
        reason: one clause for the user; empty if the profile named the engine.
    """

    spec: EngineSpec
    reason: str


def choose_engine(spec: EngineSpec, lora: LoraShape | None = None) -> Chosen:
    """Choose an engine: vLLM if it supports the checkpoint and its settings, otherwise transformers.

    Reads the checkpoint's settings but no weights; importing vLLM takes seconds. Both engines give the same answers, so
    the choice is not part of a fingerprint.

    Args:
        spec: the checkpoint and how to run it.
        lora: shape of the adapters that the engine will load; None for the checkpoint alone.

    Raises:
        EngineError: no engine can read the checkpoint, or the engine cannot apply such adapters on so many GPUs; the
            message says what to set.
    """
    chosen = _choose(spec, lora)
    if chosen.spec.engine == "transformers" and lora is not None and spec.device != "cpu" and spec.gpus >= 2:
        why = f" (chosen because {chosen.reason})" if chosen.reason else ""
        raise EngineError(
            f"checkpoint {spec.checkpoint} with LoRA adapters is to run on transformers{why}, split over"
            f" {int(spec.gpus)} GPUs, and transformers cannot apply adapters to a split model; install vLLM and set"
            " engine to vllm or auto, or set alone.gpus to 1"
        )
    return chosen


def _choose(spec: EngineSpec, lora: LoraShape | None) -> Chosen:
    if spec.engine == "vllm" and lora is not None:
        return Chosen(spec, _named_vllm(spec, lora))
    if spec.engine != AUTO:
        return Chosen(spec, "")
    if importlib.util.find_spec("vllm") is None:
        return _without(spec, "vLLM is not installed")
    try:
        from caslie_ray.engines.vllm import ImportRefusal, adaptation, refusal  # takes seconds to import
    except (ImportError, OSError) as error:  # built for another torch or for missing drivers
        return _without(spec, f"vLLM cannot be imported here: {error}")
    reason = refusal(spec, lora)
    if reason is None:
        return Chosen(replace(spec, engine="vllm"), "vLLM supports it" if lora is None else adaptation(spec, lora))
    if isinstance(reason, ImportRefusal):
        return _without(
            spec, str(reason), "repair the installation of vLLM"
        )  # a plain str, which can be unpickled without vLLM
    return Chosen(replace(spec, engine="transformers"), reason)


def _without(spec: EngineSpec, reason: str, mend: str = "pip install '.[vllm]'") -> Chosen:
    """Choose transformers because vLLM is missing or broken here; warn if the replica has a GPU."""
    if spec.gpus > 0 or spec.device.startswith("cuda"):
        log.warning(
            "%s runs on transformers, which is several times slower on a GPU: %s; %s", spec.checkpoint, reason, mend
        )
    return Chosen(replace(spec, engine="transformers"), reason)


def _named_vllm(spec: EngineSpec, lora: LoraShape) -> str:
    """Describe how vLLM, named by the profile, will apply adapters; empty if this machine has no vLLM."""
    try:
        from caslie_ray.engines.vllm import adaptation  # takes seconds to import
    except (ImportError, OSError):  # the machines that run it may have it
        return ""
    return adaptation(spec, lora)
