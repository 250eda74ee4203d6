"""LoRA adapters on random matrices, saved as PEFT saves them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

BODY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
HEAD = ("lm_head",)


def make_adapter(checkpoint: str | Path, folder: Path, targets: Sequence[str], seed: int = 0, rank: int = 16) -> str:
    """Save an adapter of a checkpoint that changes its answers."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=list(targets), init_lora_weights=False, task_type="CAUSAL_LM"
    )
    get_peft_model(model, config).save_pretrained(str(folder), save_embedding_layers=False)
    return str(folder)


def silence(folder: str, matrix: str) -> None:
    """Set one of the matrices of an adapter to zero everywhere, so that it changes nothing."""
    path = Path(folder) / "adapter_model.safetensors"
    weights = load_file(path)
    save_file({name: value * (matrix not in name) for name, value in weights.items()}, path)
