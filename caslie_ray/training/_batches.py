"""Micro-batches: the inputs of one forward pass, padded or packed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from caslie_ray.engines.trainable import Turn

__all__ = ["MicroBatch", "micro_batches", "pack_limit", "packed", "padded"]

_LONGEST_PACK = 2048
"""Maximum tokens of a pack if attention uses a dense mask: memory and time are quadratic in the pack's length."""


def pack_limit(attention: str, tokens: int) -> int:
    """Return the maximum tokens of a pack of several turns.

    Args:
        attention: the model's attention implementation, as transformers names it.
        tokens: token limit per micro-batch.
    """
    return tokens if attention == "flash_attention_2" else min(tokens, _LONGEST_PACK)


class MicroBatch(NamedTuple):
    """Tensors of one forward pass.

    Attributes:
        inputs: keyword arguments of the model, (rows, tokens).
        labels: the next token of each token, (rows, tokens); -100 to ignore.
        answers: number of tokens that contribute to the loss.
        rows: indices of its turns.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    answers: int
    rows: tuple[int, ...]


_IGNORED = -100


def micro_batches(
    turns: Sequence[Turn],
    rows: int,
    tokens: int,
    pad: int,
    *,
    pack: bool = False,
    alone_above: int | None = None,
    of: Iterable[int] | None = None,
) -> Iterator[MicroBatch]:
    """Cut turns into micro-batches.

    Args:
        turns: prompts with their answers.
        rows: maximum turns per micro-batch.
        tokens: maximum tokens per micro-batch, padding included; a longer turn goes alone.
        pad: id of the padding token.
        pack: concatenate turns in one row instead of padding; attention does not cross turns.
        alone_above: turns longer than this go alone.
        of: indices of the turns to use; by default all.
    """
    order = sorted(range(len(turns)) if of is None else of, key=lambda number: (len(turns[number].ids), number))
    group: list[int] = []
    for number in order:
        length = len(turns[number].ids)
        together = sum(len(turns[other].ids) for other in group) + length if pack else length * (len(group) + 1)
        alone = alone_above is not None and length > alone_above
        if group and (len(group) == rows or together > tokens or alone):
            yield _made(turns, group, pad, pack)
            group = []
        group.append(number)
    if group:
        yield _made(turns, group, pad, pack)


def _made(turns: Sequence[Turn], group: Sequence[int], pad: int, pack: bool) -> MicroBatch:
    chosen = [turns[number] for number in group]
    inputs, labels = packed(chosen) if pack else padded(chosen, pad)
    return MicroBatch(inputs, labels, int((labels != _IGNORED).sum()), tuple(group))


def padded(turns: Sequence[Turn], pad: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return inputs and labels with one turn per row, padded on the right."""
    width = max(len(turn.ids) for turn in turns)
    ids = torch.full((len(turns), width), pad, dtype=torch.long)
    mask = torch.zeros((len(turns), width), dtype=torch.long)
    labels = torch.full((len(turns), width), _IGNORED, dtype=torch.long)
    for row, turn in enumerate(turns):
        length = len(turn.ids)
        ids[row, :length] = torch.tensor(turn.ids)
        mask[row, :length] = 1
        labels[row, turn.start - 1 : length - 1] = ids[row, turn.start : length]
    return {"input_ids": ids, "attention_mask": mask}, labels


def packed(turns: Sequence[Turn]) -> tuple[dict[str, Tensor], Tensor]:
    """Return inputs and labels with all turns in one row; positions restart at 0 with each turn."""
    ids = torch.tensor([token for turn in turns for token in turn.ids], dtype=torch.long)
    positions = torch.cat([torch.arange(len(turn.ids)) for turn in turns])
    labels = torch.full_like(ids, _IGNORED)
    at = 0
    for turn in turns:
        end = at + len(turn.ids)
        labels[at + turn.start - 1 : end - 1] = ids[at + turn.start : end]
        at = end
    return {"input_ids": ids[None], "position_ids": positions[None]}, labels[None]
