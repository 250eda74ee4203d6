"""GPU memory of a replica, computed from a checkpoint's configuration; no weights are read.

What is counted, in bytes:

- weights: parameters × bytes per number.
- KV cache: layers × KV heads × head dim × 2 (keys and values) × bytes per number, per token. vLLM allocates it in
  blocks. Mllama's cross-attention layers keep the keys and values of each image beside it.
- vision: the peak of Mllama's vision encoder on transformers, which keeps the hidden states of all its layers.
- work: the peak of the language model's activations, and on transformers what it keeps of the images meanwhile.
- fixed: the CUDA context, library workspaces, fragmentation, and vLLM's CUDA graphs: an estimate.

The vision encoder and the language model run one after the other, so only the larger of the two counts. The formulas
follow the peak of live tensors in transformers' own forward passes; vLLM's work and `fixed` are estimates. Image
encoders of other families than Mllama are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from caslie_ray.engines._families import IMAGE_FAMILIES
from caslie_ray.engines._reader import find_source
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.errors import EngineError

__all__ = [
    "BLOCK_CPU", "BLOCK_GPU", "CARDS", "GIB", "ReplicaMemory", "Role", "batch_table", "describe",
    "kv_cache_bytes", "kv_token_bytes", "largest_batch", "memory_table", "read_config", "replica_memory", "share",
    "without_weights",
]  # fmt: skip

GIB = 2**30
CARDS = {24: 22.0, 40: 37.0, 48: 44.0, 80: 74.0, 141: 131.0}
"""Usable GiB of a card, by the GB that it is sold with."""
BLOCK_GPU = 16
BLOCK_CPU = 128
"""Tokens in a block of vLLM's KV cache."""

_LESS = (
    "lower batch_size and batch_tokens, or raise resources.gpus (in schedule=staged and in predict: alone.batch_size,"
    " alone.batch_tokens, alone.gpus)"
)
_SPARE_BLOCKS = 64  # for prefixes that outlive their prompts
_FIXED = {"transformers": 1.0, "vllm": 1.5}  # GiB
_STEP = 0.05
_USABLE = 0.93  # of a card's memory; the rest is the driver's, and room for fragments
_MOST_SHARED = 0.8  # what a larger share leaves of a card holds no other model
_BATCHES = (4, 8, 12, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 192, 256)


class ReplicaMemory(NamedTuple):
    """Bytes that one replica needs on each of its GPUs.

    Attributes:
        weights: of the checkpoint.
        kv_cache: keys and values of a full batch.
        vision: peak of the vision encoder.
        work: peak of the language model beside weights and KV cache.
        fixed: what does not depend on the model: CUDA context, graphs, workspaces.
    """

    weights: int
    kv_cache: int
    vision: int
    work: int
    fixed: int

    @property
    def total(self) -> int:
        """All of it: the vision encoder and the language model do not run at once."""
        return self.weights + max(self.vision, self.kv_cache + self.work) + self.fixed


class Role(NamedTuple):
    """A row of a table: what the model is called, its configuration, and how it is run."""

    name: str
    config: Any
    spec: EngineSpec


def read_config(spec: EngineSpec) -> Any:
    """Return the configuration of a checkpoint.

    Raises:
        EngineError: it cannot be read, as where the hub cannot be reached.
    """
    try:
        source = find_source(spec)
        return AutoConfig.from_pretrained(source.location, **source.where)
    except EngineError:
        raise
    except Exception as error:  # Each reader raises types of its own; the user needs the checkpoint's name.
        raise EngineError(f"checkpoint {spec.checkpoint} cannot be read: {type(error).__name__}: {error}") from error


def without_weights(config: Any, dtype: torch.dtype | None = None) -> Any:
    """Build a checkpoint's model on the `meta` device: its modules and shapes, and no weights."""
    auto: Any = AutoModelForImageTextToText if config.model_type in IMAGE_FAMILIES else AutoModelForCausalLM
    with torch.device("meta"):
        return auto.from_config(config, dtype=dtype, attn_implementation="sdpa")


def replica_memory(config: Any, spec: EngineSpec) -> ReplicaMemory:
    """Compute the GPU memory of a replica whose batches are full.

    Where `spec.gpus` splits the model over several GPUs, the figures are those of one of them: weights and KV cache
    are divided, the rest counts in full.

    Args:
        config: the checkpoint's configuration, as `transformers.AutoConfig` reads it.
        spec: how the checkpoint is run; its engine must be `transformers` or `vllm`.

    Raises:
        ValueError: the engine is another one.
    """
    if spec.engine not in _FIXED:
        raise ValueError(f"the engine is {spec.engine!r}; memory is known for {', '.join(_FIXED)}")
    return _memory(config, spec, _shape(config))


def share(memory: ReplicaMemory, card: float) -> float | None:
    """Return the `gpus` to ask for, as a share of one card.

    Shares are multiples of 0.05, rounded up; above 0.8 a replica takes the whole card.

    Args:
        memory: what a replica needs.
        card: usable GiB of the card, such as ``CARDS[80]``.

    Returns:
        The share, or None where the card is too small.
    """
    part = memory.total / GIB / card
    if part > 1:
        return None
    steps = math.ceil(part / _STEP - 1e-9)
    return 1.0 if part > _MOST_SHARED else round(steps * _STEP, 2)


def largest_batch(config: Any, spec: EngineSpec, card: float) -> int | None:
    """Return the largest batch size with which a replica fits a whole card, or None where not even the smallest does.

    `batch_tokens` stays as it is. Sizes between 4 and 256 are tried.
    """
    shape = _shape(config)
    sizes = (replace(spec, batch_size=size) for size in _BATCHES)
    fitting = (sized.batch_size for sized in sizes if _memory(config, sized, shape).total <= card * GIB)
    return max(fitting, default=None)


def memory_table(roles: Iterable[Role], cards: Sequence[int] = tuple(CARDS)) -> list[str]:
    """Render the memory of each role in GiB, and its share of each card.

    Args:
        roles: one a row.
        cards: GB of the cards, keys of `CARDS`; each is a column.
    """
    heads = ["weights", "KV/token", "KV", "vision", "work", "sum", *(f"{card} GB" for card in cards)]
    rows = []
    for name, config, spec in roles:
        memory = replica_memory(config, spec)
        parts = (memory.weights, memory.kv_cache, memory.vision, memory.work, memory.total)
        first, *others = (f"{part / GIB:.1f}" if part else "-" for part in parts)
        token = f"{kv_token_bytes(config, spec) / 1024:.0f} KiB"
        shares = (share(memory, CARDS[card]) for card in cards)
        rows.append([name, first, token, *others, *("no" if part is None else f"{part:g}" for part in shares)])
    return _aligned(["role", *heads], rows)


def batch_table(roles: Iterable[Role], cards: Sequence[int] = tuple(CARDS)) -> list[str]:
    """Render the largest batch size of each role on a whole card.

    Args:
        roles: one a row; their `batch_tokens` is shown, their `batch_size` is not used.
        cards: GB of the cards, keys of `CARDS`; each is a column.
    """
    rows = []
    for name, config, spec in roles:
        sizes = (largest_batch(config, spec, CARDS[card]) for card in cards)
        rows.append([name, str(spec.batch_tokens), *("no" if size is None else str(size) for size in sizes)])
    return _aligned(["role", "batch_tokens", *(f"{card} GB" for card in cards)], rows)


def describe(name: str, spec: EngineSpec, card: float | None = None) -> str | None:
    """Say in one line how much GPU memory a replica needs, and what it should ask for.

    Args:
        name: what the model is called.
        spec: how it is run.
        card: usable GiB of the GPUs at hand; None where they are not known.

    Returns:
        The line, or None for a model on the CPU, of an engine whose memory is not known, or of a checkpoint whose
        configuration cannot be read here.
    """
    if spec.gpus <= 0 or spec.engine not in _FIXED:
        return None
    try:
        config = read_config(spec)
    except EngineError:
        return None
    memory = replica_memory(config, spec)
    need = memory.total / GIB
    encoder = config.model_type in IMAGE_FAMILIES and not _cross_attention_layers(config)
    line = f"{name}  {need:.1f} GiB a replica" + (" and its image encoder" if encoder else "")
    if spec.gpus > 1:
        line += f" on each of {spec.gpus:g} GPUs"
    if card is not None:
        given = card * min(spec.gpus, 1.0)
        verdict = "fits" if need <= given else f"DOES NOT FIT: {_LESS};"
        return f"{line}: {verdict} gpus {spec.gpus:g} of a GPU with {card:.1f} GiB"
    shares = [(share(memory, usable), gb) for gb, usable in CARDS.items()]
    return f"{line}: gpus " + ", ".join(f"{part:g} of {gb} GB" for part, gb in shares if part is not None)


def usable_gib() -> float | None:
    """Return the usable GiB of this machine's smallest GPU, or None where it has none."""
    sizes = [torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count())]
    return _USABLE * min(sizes) / GIB if sizes else None


def kv_token_bytes(config: Any, spec: EngineSpec) -> int:
    """Return the bytes of a token's keys and values in all self-attention layers."""
    text = config.get_text_config(decoder=True)
    layers = text.num_hidden_layers - len(_cross_attention_layers(config))
    return int(2 * layers * _kv_width(config) * _itemsize(spec))


def kv_cache_bytes(config: Any, spec: EngineSpec, block: int) -> int:
    """Return the bytes of vLLM's KV cache: room for a full batch, and some more for prefixes.

    Args:
        config: the checkpoint's configuration.
        spec: how it is run.
        block: tokens in a block, `BLOCK_GPU` or `BLOCK_CPU`.
    """
    # One block of each prompt is not full.
    blocks = spec.batch_size + -(-_batch_tokens(spec) // block) + _SPARE_BLOCKS
    return blocks * block * kv_token_bytes(config, spec)


def _batch_tokens(spec: EngineSpec) -> int:
    return max(spec.context, min(spec.batch_size * spec.context, spec.batch_tokens))


def _itemsize(spec: EngineSpec) -> int:
    size: int = getattr(torch, spec.dtype).itemsize
    return size


class _Shape(NamedTuple):
    """What only the modules of the model show: its parameters, and whether gate and up projection are one matrix."""

    parameters: int
    fused: bool


def _shape(config: Any) -> _Shape:
    model = without_weights(config)
    fused = any(name.endswith("gate_up_proj") for name, _ in model.named_modules())
    return _Shape(sum(parameter.numel() for parameter in model.parameters()), fused)


def _memory(config: Any, spec: EngineSpec, shape: _Shape) -> ReplicaMemory:
    gpus = max(1, int(spec.gpus))
    if spec.engine == "vllm":
        kv_cache, vision, work = kv_cache_bytes(config, spec, BLOCK_GPU), 0, _vllm_work(config, spec)
    else:
        images = spec.batch_size if config.model_type in IMAGE_FAMILIES else 0
        kv_cache = _batch_tokens(spec) * kv_token_bytes(config, spec) + images * _kv_image_bytes(config, spec)
        vision = _vision_peak(config, spec, images)
        work = _transformers_work(config, spec, images, shape.fused)
    weights = shape.parameters * _itemsize(spec)
    return ReplicaMemory(weights // gpus, kv_cache // gpus, vision, work, int(_FIXED[spec.engine] * GIB))


def _cross_attention_layers(config: Any) -> Sequence[int]:
    """The layers that see an image's states; all others attend to text."""
    return getattr(config.get_text_config(decoder=True), "cross_attention_layers", None) or ()


def _kv_width(config: Any) -> int:
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    return int(heads * _head_dim(text))


def _head_dim(text: Any) -> int:
    return int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)


def _image_tokens(config: Any) -> int:
    """Tokens of an image in Mllama's cross attention, padding tiles included."""
    vision = config.vision_config
    return int(vision.max_num_tiles * ((vision.image_size // vision.patch_size) ** 2 + 1))


def _kv_image_bytes(config: Any, spec: EngineSpec) -> int:
    layers = len(_cross_attention_layers(config))
    return 2 * layers * _image_tokens(config) * _kv_width(config) * _itemsize(spec) if layers else 0


def _vision_peak(config: Any, spec: EngineSpec, images: int) -> int:
    """The peak of Mllama's vision encoder: its last steps, when the states of all layers are alive."""
    if not images or not _cross_attention_layers(config):
        return 0
    vision, size = config.vision_config, _itemsize(spec)
    # Each tile's patches are padded to a multiple of 8.
    tokens = vision.max_num_tiles * (-(-_image_tokens(config) // vision.max_num_tiles // 8) * 8)
    state = images * tokens * vision.hidden_size * size
    kept = vision.num_hidden_layers + vision.num_global_layers
    taken = len(vision.intermediate_layers_indices)
    # Either the MLP of the last layer (two states of its width; its input, the residual, the encoder's input), or the
    # chosen states stacked and joined to the last one. The patch embeddings are alive until the end.
    mlp = 2 * vision.intermediate_size / vision.hidden_size + 2
    states = kept + 1 + max(mlp, 2 * taken + 1)
    mask = images * tokens**2 * size
    return int(state * states + mask) + images * _pixel_bytes(config, spec)


def _pixel_bytes(config: Any, spec: EngineSpec) -> int:
    vision = config.vision_config
    return int(vision.max_num_tiles * vision.num_channels * vision.image_size**2 * _itemsize(spec))


def _transformers_work(config: Any, spec: EngineSpec, images: int, fused: bool) -> int:
    """The peak of a forward pass over a full batch: in an MLP, or in a cross attention."""
    text, size, tokens = config.get_text_config(decoder=True), _itemsize(spec), _batch_tokens(spec)
    # Inputs, residual, normalised states and embeddings; the gate, its activation and their product.
    hidden = 4 * text.hidden_size
    mlp = tokens * size * (hidden + (4 if fused else 3) * text.intermediate_size)
    cross = kept = 0
    if images and _cross_attention_layers(config):
        seen = images * _image_tokens(config)
        # Pixels, outputs of the vision encoder and the projector, and the mask between text and image tokens.
        kept = size * seen * (config.vision_config.vision_output_dim + text.hidden_size)
        kept += size * tokens * _image_tokens(config) + images * _pixel_bytes(config, spec)
        # Keys and values are repeated for all heads, since there is a mask; beside them the query and the output.
        cross = 2 * size * seen * text.num_attention_heads * _head_dim(text)
        cross += tokens * size * (hidden + 2 * text.hidden_size)
    mask = tokens * spec.context
    logits = spec.batch_size * text.vocab_size * (size + 4)
    return int(max(mlp, cross) + kept + mask + logits)


def _vllm_work(config: Any, spec: EngineSpec) -> int:
    """The peak of vLLM's profiling run over `batch_tokens` tokens and `batch_size` requests."""
    text, size = config.get_text_config(decoder=True), _itemsize(spec)
    tokens = max(spec.batch_tokens, spec.batch_size)
    layer = tokens * size * (3 * text.hidden_size + 3 * text.intermediate_size)
    logits = spec.batch_size * text.vocab_size * 20  # sorted for sampling: two float32, two more, and 8-byte indices
    return int(layer + logits)


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[place]) for line in [heads, *rows]) for place in range(len(heads))]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [heads, *rows]
    ]
