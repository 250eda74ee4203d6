"""A checkpoint as a plain script uses it: transformers' `generate`, one request at a time.

Not an engine: it is what the engines are measured against.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from caslie_ray.engines._device import find_devices, free_memory
from caslie_ray.engines._reader import find_source, load_reader
from caslie_ray.engines._rows import Encoder, TensorRows
from caslie_ray.engines.base import Failure, Request
from caslie_ray.engines.spec import EngineSpec

__all__ = ["PlainAnswer", "PlainModel", "plain_causal_model"]


class PlainAnswer(NamedTuple):
    """A generated text, and the tokens that were read and written for it."""

    text: str
    prompt_tokens: int
    new_tokens: int


class PlainModel:
    """A loaded checkpoint that generates text for one request at a time: greedy, batch size 1, KV cache on.

    Prompts are written as for the engines, so that both read the same tokens; the rest is transformers' own default.

    Args:
        spec: the checkpoint; `batch_size`, `batch_tokens` and `engine` are not used.

    Raises:
        EngineError: the checkpoint cannot be found or read.
    """

    def __init__(self, spec: EngineSpec) -> None:
        source = find_source(spec)
        reader = load_reader(spec, source)
        self._spec = spec
        self._device = find_devices(spec.device, min(spec.gpus, 1.0))[0]
        self._dtype = getattr(torch, spec.dtype)
        self._tokenizer = reader.tokenizer
        self._encode = Encoder(reader.chat, reader.family, spec.context, (), TensorRows(reader.chat, reader.processor))
        auto: Any = AutoModelForImageTextToText if reader.family.sees else AutoModelForCausalLM
        self._model: Any = auto.from_pretrained(
            source.location, **source.where, dtype=self._dtype, device_map={"": self._device}
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
        """Generate up to `new_tokens` tokens for a request; a Failure where its prompt does not fit the context."""
        row = self._encode(request, self._spec.context - new_tokens)
        if isinstance(row, Failure):
            return row
        inputs = {
            name: value.to(self._device, self._dtype if value.is_floating_point() else None)
            for name, value in row.inputs.items()
        }
        with torch.inference_mode():
            written = self._model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False, pad_token_id=self._pad)
        ids = written[0, inputs["input_ids"].shape[1] :].tolist()
        text = self._tokenizer.decode(ids, skip_special_tokens=True).strip()
        return PlainAnswer(text, row.tokens, len(ids))

    def close(self) -> None:
        """Free the model and its memory."""
        self._model = None
        free_memory()


def plain_causal_model(spec: EngineSpec, dtype: str) -> Any:
    """Load a text checkpoint as a plain training script does, on the device of its spec.

    Raises:
        EngineError: the checkpoint cannot be found.
    """
    auto: Any = AutoModelForCausalLM
    source = find_source(spec)
    device = find_devices(spec.device, min(spec.gpus, 1.0))[0]
    return auto.from_pretrained(source.location, **source.where, dtype=getattr(torch, dtype), device_map={"": device})
