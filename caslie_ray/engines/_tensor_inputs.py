"""Tensor inputs of transformers models: one row per request, and their collation into a padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from caslie_ray.engines._chat import Chat
from caslie_ray.engines.cutting import Cut

__all__ = ["Processor", "TensorRow", "TensorRows", "collate"]

# Tensors whose second dimension is the prompt's tokens.
_ALONG_TOKENS = ("input_ids", "attention_mask", "token_type_ids", "cross_attention_mask")


class Processor(Protocol):
    """The part of a transformers processor that is used here."""

    def __call__(
        self, *, text: list[str], images: list[Image.Image], add_special_tokens: bool, return_tensors: str
    ) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One request as the tensors that a transformers model takes.

    Attributes:
        inputs: keyword arguments of the model, each with a batch dimension of 1.
        tokens: tokens of the prompt, including those of the image.
        cut: whether user fields lost words.
        captions_cut: whether captions in the prompt lost words.
    """

    inputs: dict[str, Tensor]
    tokens: int
    cut: bool
    captions_cut: bool = False


class TensorRows:
    """Builds `TensorRow`s.

    Args:
        chat: renders the prompts.
        processor: prepares images together with text; None for a text checkpoint.
    """

    def __init__(self, chat: Chat, processor: Processor | None) -> None:
        self._chat = chat
        self._processor = processor

    def __call__(self, fitted: Cut, image: Image.Image | None) -> TensorRow:
        """Return the row of a prompt and its image."""
        if image is None:
            ids = torch.tensor([fitted.ids], dtype=torch.long)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            return TensorRow(inputs, len(fitted.ids), fitted.cut, fitted.captions_cut)
        assert self._processor is not None  # architectures that take images are loaded with one
        rendered = self._chat.render(fitted.text, image=True)
        processed = self._processor(
            text=[rendered],
            images=[image],
            add_special_tokens=self._chat.adds_special_tokens(rendered),
            return_tensors="pt",
        )
        inputs = dict(processed)
        return TensorRow(inputs, inputs["input_ids"].shape[1], fitted.cut, fitted.captions_cut)


def collate(rows: Sequence[TensorRow]) -> dict[str, Tensor]:
    """Stack rows into a batch: tokens padded on the left, image tiles and pixels padded with zeros at the end.

    Padding repeats a row's own last token, which the attention mask hides. So code that reads the ids (a repetition
    penalty, the positions of images) finds the same in a padded row as in the row alone.
    """
    batch: dict[str, Tensor] = {}
    for name in rows[0].inputs:
        values = [row.inputs[name] for row in rows]
        shape = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
        padded = []
        for value in values:
            missing = [most - size for most, size in zip(shape, value.shape[1:], strict=True)]
            # `pad` takes (before, after) of the last dimension first.
            sides: list[int] = []
            for place, gap in reversed(list(enumerate(missing))):
                sides += [gap, 0] if place == 0 and name in _ALONG_TOKENS else [0, gap]
            last = value[0, -1].item() if name == "input_ids" else 0
            padded.append(functional.pad(value, sides, value=last) if any(missing) else value)
        batch[name] = torch.cat(padded)
    return batch
