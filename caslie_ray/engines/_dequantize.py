"""A GGUF checkpoint as a folder of safetensors, for an engine that reads no GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from caslie_ray.engines._reader import Reader, Source

__all__ = ["write_safetensors"]


def write_safetensors(source: Source, reader: Reader, dtype: str, folder: Path) -> None:
    """Write the weights that transformers makes of a GGUF file, and its tokenizer."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        source.location, **source.where, config=reader.config, dtype=getattr(torch, dtype)
    )
    # Without these, transformers would try to save it as the quantized model that it no longer is.
    model.hf_quantizer = None
    for name in ("quantization_method", "is_quantized"):
        if hasattr(model, name):
            delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    reader.tokenizer.save_pretrained(folder)
