"""GPU memory reports: what a replica needs, which share of a card to request, and the largest batch that fits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from caslie_ray.engines._architectures import IMAGE_ARCHITECTURES
from caslie_ray.engines._preprocessor import read_config
from caslie_ray.engines._replica_memory import (
    GIB,
    KNOWN_ENGINES,
    ReplicaMemory,
    has_cross_attention,
    kv_token_bytes,
    model_shape,
    replica_memory,
)
from caslie_ray.engines.spec import EngineSpec
from caslie_ray.errors import EngineError

__all__ = ["CARDS", "Role", "batch_table", "describe", "largest_batch", "memory_table", "share", "usable_gib"]

CARDS = {24: 22.0, 40: 37.0, 48: 44.0, 80: 74.0, 141: 131.0}
"""Usable GiB of a card, by the GB that it is sold with."""

_LESS = (
    "lower batch_size and batch_tokens, or raise resources.gpus (in schedule=staged and in predict: alone.batch_size,"
    " alone.batch_tokens, alone.gpus)"
)
_STEP = 0.05
_USABLE = 0.93  # of a card's memory; the rest is for the driver and fragmentation
_MOST_SHARED = 0.8  # the remainder of a card after a larger share fits no other model
_BATCHES = (4, 8, 12, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 192, 256)


class Role(NamedTuple):
    """A row of a table: a model's name, its configuration, and how it is run."""

    name: str
    config: Any
    spec: EngineSpec


def share(memory: ReplicaMemory, card: float) -> float | None:
    """Return the `gpus` to request, as a share of one card.

    Shares are multiples of 0.05, rounded up; above 0.8 a replica takes the entire card.

    Args:
        memory: what a replica needs.
        card: usable GiB of the card, such as ``CARDS[80]``.

    Returns:
        The share, or None if the card is too small.
    """
    part = memory.total / GIB / card
    if part > 1:
        return None
    steps = math.ceil(part / _STEP - 1e-9)
    return 1.0 if part > _MOST_SHARED else round(steps * _STEP, 2)


def largest_batch(config: Any, spec: EngineSpec, card: float) -> int | None:
    """Return the largest batch size with which a replica fits an entire card, or None if not even the smallest fits.

    `batch_tokens` is not changed. Sizes from 4 to 256 are tried.
    """
    shape = model_shape(config)
    sizes = (replace(spec, batch_size=size) for size in _BATCHES)
    fitting = (sized.batch_size for sized in sizes if replica_memory(config, sized, shape).total <= card * GIB)
    return max(fitting, default=None)


def memory_table(roles: Iterable[Role], cards: Sequence[int] = tuple(CARDS)) -> list[str]:
    """Render the memory of each role in GiB and its share of each card.

    Args:
        roles: one per row.
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
    """Render the largest batch size of each role on an entire card.

    Args:
        roles: one per row; their `batch_tokens` is shown, their `batch_size` is not used.
        cards: GB of the cards, keys of `CARDS`; each is a column.
    """
    rows = []
    for name, config, spec in roles:
        sizes = (largest_batch(config, spec, CARDS[card]) for card in cards)
        rows.append([name, str(spec.batch_tokens), *("no" if size is None else str(size) for size in sizes)])
    return _aligned(["role", "batch_tokens", *(f"{card} GB" for card in cards)], rows)


def describe(name: str, spec: EngineSpec, card: float | None = None) -> str | None:
    """Describe in one line the GPU memory of a replica and the `gpus` to request.

    Args:
        name: the model's name.
        spec: how it is run.
        card: usable GiB of the available GPUs; None if unknown.

    Returns:
        The line, or None for a model on the CPU, an engine whose memory is not known, or a checkpoint whose
        configuration cannot be read here.
    """
    if spec.gpus <= 0 or spec.engine not in KNOWN_ENGINES:
        return None
    try:
        config = read_config(spec)
    except EngineError:
        return None
    memory = replica_memory(config, spec)
    need = memory.total / GIB
    encoder = config.model_type in IMAGE_ARCHITECTURES and not has_cross_attention(config)
    line = f"{name}  {need:.1f} GiB per replica" + (" and its image encoder" if encoder else "")
    if spec.gpus > 1:
        line += f" on each of {spec.gpus:g} GPUs"
    if card is not None:
        given = card * min(spec.gpus, 1.0)
        verdict = "fits" if need <= given else f"DOES NOT FIT: {_LESS};"
        return f"{line}: {verdict} gpus {spec.gpus:g} of a GPU with {card:.1f} GiB"
    shares = [(share(memory, usable), gb) for gb, usable in CARDS.items()]
    return f"{line}: gpus " + ", ".join(f"{part:g} of {gb} GB" for part, gb in shares if part is not None)


def usable_gib() -> float | None:
    """Return the usable GiB of this machine's smallest GPU, or None without GPUs."""
    sizes = [torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count())]
    return _USABLE * min(sizes) / GIB if sizes else None


def _aligned(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[place]) for line in [heads, *rows]) for place in range(len(heads))]
    return [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [heads, *rows]
    ]
