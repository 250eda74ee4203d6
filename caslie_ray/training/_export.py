"""Merges a trained adapter into its base: a checkpoint that needs no PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from caslie_ray.engines import EngineSpec
from caslie_ray.engines.trainable import load_trainable

__all__ = ["merge_adapter", "untie"]


def untie(model: Any) -> None:
    """Untie the language modelling head from the embeddings.

    An adapter on the head must not change the embeddings, as merging it into tied weights would.
    """
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is embeddings.weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False
    model.config.get_text_config(decoder=True).tie_word_embeddings = False


def merge_adapter(spec: EngineSpec, adapter: Path, folder: Path) -> None:
    """Write a base with an adapter merged into it, with tokenizer and chat template.

    It answers like base and adapter, up to rounding in the weights' dtype, and loads with plain transformers and vLLM.

    Args:
        spec: the base.
        adapter: the adapter's folder.
        folder: where the checkpoint is written.

    Raises:
        EngineError: the base cannot be loaded.
    """
    model, turns = load_trainable(spec, torch.device("cpu"))
    untie(model)
    merged: Any = PeftModel.from_pretrained(model, str(adapter))
    merged = merged.merge_and_unload(safe_merge=True)
    merged.save_pretrained(str(folder))
    turns.save(str(folder))
