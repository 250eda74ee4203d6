"""A trained adapter merged into its base: a checkpoint that needs no PEFT."""

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
    """Give the language modelling head weights of its own, where it shares those of the embeddings.

    An adapter on the head changes the head alone; merged into shared weights it would change the embeddings too.
    """
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is embeddings.weight:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False
    model.config.get_text_config(decoder=True).tie_word_embeddings = False


def merge_adapter(spec: EngineSpec, adapter: Path, folder: Path) -> None:
    """Write a base with an adapter merged into it, its tokenizer and its chat template.

    It answers as base and adapter do, up to the rounding of the weights' type, and loads with plain transformers and
    with vLLM.

    Args:
        spec: the base.
        adapter: the adapter's folder.
        folder: where the checkpoint goes.

    Raises:
        EngineError: the base cannot be loaded.
    """
    model, turns = load_trainable(spec, torch.device("cpu"))
    untie(model)
    merged: Any = PeftModel.from_pretrained(model, str(adapter))
    merged = merged.merge_and_unload(safe_merge=True)
    merged.save_pretrained(str(folder))
    turns.save(str(folder))
