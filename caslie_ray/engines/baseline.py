"""Benchmark baseline: transformers' `generate`, one request at a time. Not an engine."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from caslie_ray.engines._base import Failure, Request
from caslie_ray.engines._device import find_devices, free_memory
from caslie_ray.engines._preprocessor import load_preprocessor
from caslie_ray.engines._request_encoder import RequestEncoder
from caslie_ray.engines._source import find_source
from caslie_ray.engines._tensor_inputs import TensorRows
from caslie_ray.engines.spec import EngineSpec

__all__ = ["PlainAnswer", "PlainModel", "plain_causal_model"]


class PlainAnswer(NamedTuple):
    """A generated text, with its numbers of prompt and generated tokens."""

    text: str
    prompt_tokens: int
    new_tokens: int


class PlainModel:
    """A loaded checkpoint that generates text for one request at a time: greedy, batch size 1, KV cache on.

    Prompts are rendered as in the engines, so that both read the same tokens; the rest is transformers' default.

    Args:
        spec: the checkpoint; `batch_size`, `batch_tokens` and `engine` are not used.

    Raises:
        EngineError: the checkpoint cannot be found or read.
    """

    def __init__(self, spec: EngineSpec) -> None:
        source = find_source(spec)
        _, tokenizer, processor, architecture, chat = load_preprocessor(spec, source)
        self._spec = spec
        self._device = find_devices(spec.device, min(spec.gpus, 1.0))[0]
        self._dtype = getattr(torch, spec.dtype)
        self._tokenizer = tokenizer
        self._encode = RequestEncoder(chat, architecture, spec.context, (), TensorRows(chat, processor))
        auto: Any = AutoModelForImageTextToText if architecture.takes_images else AutoModelForCausalLM
        self._model: Any = auto.from_pretrained(
            source.location, **source.arguments, dtype=self._dtype, device_map={"": self._device}
        ).eval()
        ends = self._model.generation_config.eos_token_id
        first_end = ends[0] if isinstance(ends, list) else ends
        pad = self._tokenizer.pad_token_id
        self._pad = pad if pad is not None else first_end

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    def answer(self, request: Request, new_tokens: int) -> PlainAnswer | Failure:
        """Generate up to `new_tokens` tokens for a request; a Failure if its prompt does not fit the context."""
        row = self._encode(request, self._spec.context - new_tokens)
        if isinstance(row, Failure):
            return row
        inputs = {
            name: value.to(self._device, self._dtype if value.is_floating_point() else None)
            for name, value in row.inputs.items()
        }
        with torch.inference_mode():
            outputs = self._model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False, pad_token_id=self._pad)
        ids = outputs[0, inputs["input_ids"].shape[1] :].tolist()
        text = self._tokenizer.decode(ids, skip_special_tokens=True).strip()
        return PlainAnswer(text, row.tokens, len(ids))

    def close(self) -> None:
        """Free the model and its memory."""
        self._model = None
        free_memory()


def plain_causal_model(spec: EngineSpec, dtype: str) -> Any:
    """Load a text checkpoint as a plain training script does, on its spec's device.

    Raises:
        EngineError: the checkpoint cannot be found.
    """
    auto: Any = AutoModelForCausalLM
    source = find_source(spec)
    device = find_devices(spec.device, min(spec.gpus, 1.0))[0]
    return auto.from_pretrained(
        source.location, **source.arguments, dtype=getattr(torch, dtype), device_map={"": device}
    )
