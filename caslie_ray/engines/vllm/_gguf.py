"""Converts a GGUF checkpoint to safetensors, which vLLM can read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from caslie_ray.engines._preprocessor import Preprocessor
from caslie_ray.engines._source import Source

__all__ = ["write_safetensors"]


def write_safetensors(source: Source, preprocessor: Preprocessor, dtype: str, folder: Path) -> None:
    """Write dequantized weights and the tokenizer to a folder."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        source.location, **source.arguments, config=preprocessor.config, dtype=getattr(torch, dtype)
    )
    # Otherwise transformers would try to save it as a quantized model.
    model.hf_quantizer = None
    for name in ("quantization_method", "is_quantized"):
        if hasattr(model, name):
            delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    preprocessor.tokenizer.save_pretrained(folder)
