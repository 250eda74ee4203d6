"""LoRA adapters on random matrices, saved as PEFT saves them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
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


def untie(checkpoint: str | Path, folder: Path) -> Path:
    """Copy a checkpoint, its head cut loose from its embeddings and changed, with its weights in several files."""
    shutil.copytree(checkpoint, folder)
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach() + 0.02 * torch.randn_like(model.lm_head.weight))
    model.save_pretrained(folder, max_shard_size="1MB")
    return folder


def add_mistral_format(folder: Path) -> None:
    """Add the files of Mistral's own format to those of transformers, as in Mistral's repositories.

    Both are useless: who reads them fails.
    """
    (folder / "params.json").write_text('{"dim": 1}')
    save_file({"norm.weight": torch.zeros(1)}, folder / "consolidated.safetensors")
