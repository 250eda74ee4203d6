"""Configurations of the paper's checkpoints, as far as memory depends on them. The hub is not asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import LlamaConfig, MistralConfig, MllamaConfig, Phi3Config

__all__ = ["config_of"]


def config_of(checkpoint: str) -> Any:
    """Return the configuration of a checkpoint of the paper's profiles, by its hub id."""
    return _CONFIGS[checkpoint]()


def _vision() -> Any:
    config: Any = MllamaConfig()  # its defaults are those of the 11B, but for the size of a tile
    config.vision_config.image_size = 560
    return config


def _llama_3b() -> Any:
    return LlamaConfig(
        hidden_size=3072, intermediate_size=8192, num_hidden_layers=28, num_attention_heads=24, num_key_value_heads=8,
        head_dim=128, vocab_size=128256, tie_word_embeddings=True, max_position_embeddings=131072,
    )  # fmt: skip


def _llama_8b() -> Any:
    return LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=128256, max_position_embeddings=131072,
    )  # fmt: skip


def _mistral() -> Any:
    return MistralConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=32768, max_position_embeddings=32768, sliding_window=None,
    )  # fmt: skip


def _phi() -> Any:
    return Phi3Config(
        hidden_size=3072, intermediate_size=8192, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32,
        vocab_size=32064, max_position_embeddings=131072,
    )  # fmt: skip


def _llama_13b() -> Any:
    return LlamaConfig(
        hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40, num_key_value_heads=40,
        vocab_size=32000, max_position_embeddings=4096,
    )  # fmt: skip


_CONFIGS: dict[str, Callable[[], Any]] = {
    "meta-llama/Llama-3.2-11B-Vision-Instruct": _vision,
    "meta-llama/Llama-3.2-3B-Instruct": _llama_3b,
    "meta-llama/Llama-3.1-8B-Instruct": _llama_8b,
    "mistralai/Mistral-7B-Instruct-v0.3": _mistral,
    "microsoft/Phi-3.5-mini-instruct": _phi,
    "meta-llama/Llama-2-13b-chat-hf": _llama_13b,
}
