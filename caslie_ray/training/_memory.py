"""Estimates the memory of a training from the checkpoint's configuration."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn

from caslie_ray.engines import EngineSpec
from caslie_ray.engines.trainable import model_without_weights, read_config
from caslie_ray.errors import EngineError
from caslie_ray.profiles.training import TrainingSettings

__all__ = ["Memory", "cards", "estimate", "starting_tokens"]

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_ADAPTER = 20  # bytes per parameter in float32: value, gradient of the step and of a micro-batch, AdamW's two moments
# Bytes per token of a Llama-like decoder layer with LoRA on all projections: saved for the backward pass, and used
# during it; per unit of hidden size, and of intermediate size. Fitted to the peak of live tensors of real passes on a
# CPU, where attention is fused as on a GPU; not measured on a GPU.
_KEPT = {"float32": (37, 16), "bfloat16": (43, 10), "float16": (43, 10)}
_WORKING = {"float32": (0, 8), "bfloat16": (12, 4), "float16": (12, 4)}
_LOGIT = 12  # bytes per logit: itself, its log-probability and its gradient
_MASK = 3  # bytes per token and position of a sample: SDPA's mask, boolean and additive
_GIB = 2.0**30
_RESERVE = 1.0  # GiB for the CUDA context, cuBLAS and NCCL: an estimate
_CARDS = {"24 GB": 22.0, "40 GB": 39.4, "48 GB": 44.3, "80 GB": 79.1, "141 GB": 139.7}
"""GiB that common GPUs report, by their nominal memory."""


class Activations(NamedTuple):
    """Memory of activations, in bytes.

    Attributes:
        kept: per token, saved for the backward pass.
        working: per token, during the backward pass of one layer.
        logits: per answer.
    """

    kept: float
    working: float
    logits: float

    def of(self, tokens: int, answers: int) -> float:
        """Return the GiB of a micro-batch. Logits are freed before the first layer's backward pass."""
        return (self.kept * tokens + max(self.working * tokens, self.logits * answers)) / _GIB

    def tokens(self, room: float, answers: int) -> int:
        """Return the tokens of the largest micro-batch that fits into `room` GiB; at least 1."""
        room *= _GIB
        beside_layer = room / (self.kept + self.working)
        beside_logits = (room - self.logits * answers) / self.kept
        return max(1, int(min(beside_layer, beside_logits)))


class Memory(NamedTuple):
    """Memory of one worker, in GiB.

    Attributes:
        weights: of the base.
        adapter: the adapter, its gradients and the optimizer state.
        activations: of the largest micro-batch.
        smallest: activations of the smallest possible micro-batch: one sample of `context` tokens.
    """

    weights: float
    adapter: float
    activations: float
    smallest: float

    @property
    def total(self) -> float:
        """The sum, with the largest micro-batch."""
        return self.weights + self.adapter + self.activations


def estimate(spec: EngineSpec, settings: TrainingSettings) -> Memory:
    """Estimate the memory of one worker; no weights are loaded.

    Raises:
        EngineError: the checkpoint's configuration cannot be read.
    """
    model = model_without_weights(spec)
    weights = sum(parameter.numel() for parameter in model.parameters())
    adapted = sum(
        settings.lora.rank * (module.in_features + module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in settings.lora.targets
    )
    width = _BYTES[spec.dtype]
    base = weights * (0.55 if settings.quantize == "4bit" else width)
    base /= settings.num_workers.min if settings.shard else 1
    passes = _activations(model.config.get_text_config(decoder=True), spec, settings)
    largest = passes.of(max(settings.micro_tokens, spec.context), settings.micro_batch)
    return Memory(base / _GIB, adapted * _ADAPTER / _GIB, largest, passes.of(spec.context, 1))


def _activations(text: Any, spec: EngineSpec, settings: TrainingSettings) -> Activations:
    width = _BYTES[spec.dtype]
    kept, working = (
        hidden * text.hidden_size + inner * text.intermediate_size
        for hidden, inner in (_KEPT[spec.dtype], _WORKING[spec.dtype])
    )
    always = 3 * width * text.hidden_size + _MASK * spec.context
    # An answer is a label or a title: at most as long as what is generated.
    logits = _LOGIT * text.vocab_size * spec.max_new_tokens
    if settings.gradient_checkpointing:
        inputs = width * text.hidden_size * text.num_hidden_layers
        return Activations(always + inputs, kept + working, logits)
    return Activations(always + kept * text.num_hidden_layers, working, logits)


def starting_tokens(spec: EngineSpec, settings: TrainingSettings, card: float) -> int:
    """Return the token limit per micro-batch to begin with: `micro_tokens`, or what fits the GPU by estimate.

    Args:
        spec: the base.
        settings: the hyperparameters.
        card: memory of the GPU, in GiB.

    Raises:
        EngineError: not even one sample of `context` tokens fits.
    """
    need = estimate(spec, settings)
    room = card - _RESERVE - need.weights - need.adapter
    if need.smallest > room:
        raise EngineError(
            f"{spec.checkpoint} needs {need.weights:.1f} GiB for its weights, {need.adapter:.1f} for the adapter and"
            f" {need.smallest:.1f} for one sample of {spec.context} tokens, and this GPU has {card:.1f}, of which"
            f" {_RESERVE:g} is for CUDA: use a larger one, a lower lineup.base.context,"
            " training.gradient_checkpointing=true, training.dtype=bfloat16, training.quantize=4bit, or"
            " training.shard=true on several"
        )
    if need.activations <= room:
        return settings.micro_tokens
    passes = _activations(read_config(spec).get_text_config(decoder=True), spec, settings)
    return min(settings.micro_tokens, passes.tokens(room, settings.micro_batch))


def cards(spec: EngineSpec, settings: TrainingSettings) -> str:
    """Return which common GPUs a worker fits, and with which `micro_tokens` if it must be lowered.

    Raises:
        EngineError: the checkpoint's configuration cannot be read.
    """
    fits = []
    for name, card in _CARDS.items():
        try:
            tokens = starting_tokens(spec, settings, card)
        except EngineError:
            fits.append(f"{name} no")
        else:
            fits.append(f"{name} yes" if tokens == settings.micro_tokens else f"{name} with micro_tokens {tokens:,}")
    return ", ".join(fits)
