"""GPU memory of a replica, computed from a checkpoint's configuration; no weights are read.

Components, in bytes:

- weights: parameters × bytes per number.
- KV cache: layers × KV heads × head dim × 2 (keys and values) × bytes per number, per token. vLLM allocates it in
  blocks. Mllama's cross-attention layers also keep the keys and values of each image.
- vision: peak of Mllama's vision encoder on transformers, which keeps the hidden states of all its layers.
- work: peak activations of the language model, and on transformers the image tensors that are alive meanwhile.
- fixed: CUDA context, library workspaces, fragmentation and vLLM's CUDA graphs (an estimate).

The vision encoder and the language model run one after the other, so only the larger of the two counts. The formulas
follow the peak of live tensors in transformers' forward passes; vLLM's work and `fixed` are estimates. Image encoders
of architectures other than Mllama are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from caslie_ray.engines._architectures import IMAGE_ARCHITECTURES
from caslie_ray.engines.spec import EngineSpec

__all__ = [
    "BLOCK_CPU", "BLOCK_GPU", "GIB", "KNOWN_ENGINES", "ModelShape", "ReplicaMemory", "has_cross_attention",
    "kv_cache_bytes", "kv_token_bytes", "model_shape", "replica_memory", "without_weights",
]  # fmt: skip

GIB = 2**30
BLOCK_GPU = 16
BLOCK_CPU = 128
"""Tokens in a block of vLLM's KV cache."""

_SPARE_BLOCKS = 64  # for cached prefixes
_FIXED = {"transformers": 1.0, "vllm": 1.5}  # GiB
KNOWN_ENGINES = tuple(_FIXED)
"""The engines whose memory can be computed."""


class ReplicaMemory(NamedTuple):
    """Bytes that one replica needs on each of its GPUs.

    Attributes:
        weights: the checkpoint's parameters.
        kv_cache: keys and values of a full batch.
        vision: peak of the vision encoder.
        work: peak activations of the language model.
        fixed: independent of the model: CUDA context, graphs, workspaces.
    """

    weights: int
    kv_cache: int
    vision: int
    work: int
    fixed: int

    @property
    def total(self) -> int:
        """The peak: the vision encoder and the language model do not run at the same time."""
        return self.weights + max(self.vision, self.kv_cache + self.work) + self.fixed


def without_weights(config: Any, dtype: torch.dtype | None = None) -> Any:
    """Build a checkpoint's model on the `meta` device: modules and shapes without weights."""
    auto: Any = AutoModelForImageTextToText if config.model_type in IMAGE_ARCHITECTURES else AutoModelForCausalLM
    with torch.device("meta"):
        return auto.from_config(config, dtype=dtype, attn_implementation="sdpa")


class ModelShape(NamedTuple):
    """What only the model's modules show.

    Attributes:
        parameters: number of parameters.
        fused: whether gate and up projection are one matrix.
    """

    parameters: int
    fused: bool


def model_shape(config: Any) -> ModelShape:
    """Build the model without weights and count its parameters; takes seconds for large models."""
    model = without_weights(config)
    fused = any(name.endswith("gate_up_proj") for name, _ in model.named_modules())
    return ModelShape(sum(parameter.numel() for parameter in model.parameters()), fused)


def replica_memory(config: Any, spec: EngineSpec, shape: ModelShape | None = None) -> ReplicaMemory:
    """Compute the GPU memory of a replica with full batches.

    If `spec.gpus` splits the model over several GPUs, the result is per GPU: weights and KV cache are divided, the
    rest counts in full.

    Args:
        config: the checkpoint's configuration, as `transformers.AutoConfig` reads it.
        spec: how the checkpoint is run; its engine must be one of `KNOWN_ENGINES`.
        shape: the model's shape; None computes it.

    Raises:
        ValueError: the memory of this engine is not known.
    """
    if spec.engine not in _FIXED:
        raise ValueError(f"the engine is {spec.engine!r}; memory is known for {', '.join(_FIXED)}")
    shape = shape or model_shape(config)
    gpus = max(1, int(spec.gpus))
    if spec.engine == "vllm":
        kv_cache, vision, work = kv_cache_bytes(config, spec, BLOCK_GPU), 0, _vllm_work(config, spec)
    else:
        images = spec.batch_size if config.model_type in IMAGE_ARCHITECTURES else 0
        kv_cache = _batch_tokens(spec) * kv_token_bytes(config, spec) + images * _kv_image_bytes(config, spec)
        vision = _vision_peak(config, spec, images)
        work = _transformers_work(config, spec, images, shape.fused)
    weights = shape.parameters * _itemsize(spec)
    return ReplicaMemory(weights // gpus, kv_cache // gpus, vision, work, int(_FIXED[spec.engine] * GIB))


def has_cross_attention(config: Any) -> bool:
    """Return whether the language model attends to image states in layers of their own, as Mllama does."""
    return bool(_cross_attention_layers(config))


def kv_token_bytes(config: Any, spec: EngineSpec) -> int:
    """Return the bytes of one token's keys and values in all self-attention layers."""
    text = config.get_text_config(decoder=True)
    layers = text.num_hidden_layers - len(_cross_attention_layers(config))
    return int(2 * layers * _kv_width(config) * _itemsize(spec))


def kv_cache_bytes(config: Any, spec: EngineSpec, block: int) -> int:
    """Return the bytes of vLLM's KV cache: room for a full batch, plus spare blocks for cached prefixes.

    Args:
        config: the checkpoint's configuration.
        spec: how it is run.
        block: tokens in a block, `BLOCK_GPU` or `BLOCK_CPU`.
    """
    # the last block of each prompt is partly empty
    blocks = spec.batch_size + -(-_batch_tokens(spec) // block) + _SPARE_BLOCKS
    return blocks * block * kv_token_bytes(config, spec)


def _batch_tokens(spec: EngineSpec) -> int:
    return max(spec.context, min(spec.batch_size * spec.context, spec.batch_tokens))


def _itemsize(spec: EngineSpec) -> int:
    size: int = getattr(torch, spec.dtype).itemsize
    return size


def _cross_attention_layers(config: Any) -> Sequence[int]:
    """Return the layers that attend to the image; all others attend to text."""
    return getattr(config.get_text_config(decoder=True), "cross_attention_layers", None) or ()


def _kv_width(config: Any) -> int:
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return int(heads * _head_dim(text))


def _head_dim(text: Any) -> int:
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def _image_tokens(config: Any) -> int:
    """Return the tokens of an image in Mllama's cross-attention, including padding tiles."""
    vision = config.vision_config
    return int(vision.max_num_tiles * ((vision.image_size // vision.patch_size) ** 2 + 1))


def _kv_image_bytes(config: Any, spec: EngineSpec) -> int:
    layers = len(_cross_attention_layers(config))
    return 2 * layers * _image_tokens(config) * _kv_width(config) * _itemsize(spec) if layers else 0


def _vision_peak(config: Any, spec: EngineSpec, images: int) -> int:
    """Return the peak of Mllama's vision encoder: its last steps, when the states of all layers are alive."""
    if not images or not _cross_attention_layers(config):
        return 0
    vision, size = config.vision_config, _itemsize(spec)
    # Each tile's patches are padded to a multiple of 8.
    tokens = vision.max_num_tiles * (-(-_image_tokens(config) // vision.max_num_tiles // 8) * 8)
    state = images * tokens * vision.hidden_size * size
    kept = vision.num_hidden_layers + vision.num_global_layers
    taken = len(vision.intermediate_layers_indices)
    # The larger of the last layer's MLP (two states of its width; its input, the residual, the encoder's input) and the
    # selected states stacked and concatenated to the last one. The patch embeddings stay alive until the end.
    mlp = 2 * vision.intermediate_size / vision.hidden_size + 2
    states = kept + 1 + max(mlp, 2 * taken + 1)
    mask = images * tokens**2 * size
    return int(state * states + mask) + images * _pixel_bytes(config, spec)


def _pixel_bytes(config: Any, spec: EngineSpec) -> int:
    vision = config.vision_config
    return int(vision.max_num_tiles * vision.num_channels * vision.image_size**2 * _itemsize(spec))


def _transformers_work(config: Any, spec: EngineSpec, images: int, fused: bool) -> int:
    """Return the peak of a forward pass over a full batch: in an MLP or a cross-attention layer."""
    text, size, tokens = config.get_text_config(decoder=True), _itemsize(spec), _batch_tokens(spec)
    # Inputs, residual, normalized states and embeddings; the gate, its activation and their product.
    hidden = 4 * text.hidden_size
    mlp = tokens * size * (hidden + (4 if fused else 3) * text.intermediate_size)
    cross = kept = 0
    if images and _cross_attention_layers(config):
        seen = images * _image_tokens(config)
        # Pixels, outputs of the vision encoder and the projector, and the mask between text and image tokens.
        kept = size * seen * (config.vision_config.vision_output_dim + text.hidden_size)
        kept += size * tokens * _image_tokens(config) + images * _pixel_bytes(config, spec)
        # Keys and values are repeated for all heads because of the mask; plus the query and the output.
        cross = 2 * size * seen * text.num_attention_heads * _head_dim(text)
        cross += tokens * size * (hidden + 2 * text.hidden_size)
    mask = tokens * spec.context
    logits = spec.batch_size * text.vocab_size * (size + 4)
    return int(max(mlp, cross) + kept + mask + logits)


def _vllm_work(config: Any, spec: EngineSpec) -> int:
    """Return the peak of vLLM's profiling run over `batch_tokens` tokens and `batch_size` requests."""
    text, size = config.get_text_config(decoder=True), _itemsize(spec)
    tokens = max(spec.batch_tokens, spec.batch_size)
    layer = tokens * size * (3 * text.hidden_size + 3 * text.intermediate_size)
    logits = spec.batch_size * text.vocab_size * 20  # sorting for sampling: two float32, two more, and 8-byte indices
    return int(layer + logits)
