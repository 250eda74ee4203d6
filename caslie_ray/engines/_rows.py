"""From a request to tensors of one row, and from rows to a batch."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from caslie_ray.engines._chat import Chat
from caslie_ray.engines._families import Family
from caslie_ray.engines.base import Failure, Request
from caslie_ray.engines.cutting import Cut, PromptTooLong

__all__ = ["Encoder", "Row", "collate"]

# Tensors with the prompt's tokens along their second dimension; images lie along the others.
_ALONG_TOKENS = ("input_ids", "attention_mask", "token_type_ids", "cross_attention_mask")


class Processor(Protocol):
    """The part of a transformers processor that is used here."""

    def __call__(
        self, *, text: list[str], images: list[Image.Image], add_special_tokens: bool, return_tensors: str
    ) -> Mapping[str, Tensor]: ...


@dataclass(frozen=True, slots=True)
class Row:
    """One request, ready for the model.

    Attributes:
        inputs: keyword arguments of the model, each with a batch dimension of 1.
        tokens: tokens of the prompt, those of the image included.
        cut: whether user fields lost words.
    """

    inputs: dict[str, Tensor]
    tokens: int
    cut: bool


class Encoder:
    """Turns requests into rows, one at a time, so that none can spoil another.

    Args:
        chat: writes the prompts.
        family: what the checkpoint takes.
        processor: prepares images together with text; None for a text checkpoint.
        context: tokens of prompt and answer together, for messages.
    """

    def __init__(self, chat: Chat, family: Family, processor: Processor | None, context: int) -> None:
        self._chat = chat
        self._family = family
        self._processor = processor
        self._context = context

    def __call__(self, request: Request, budget: int) -> Row | Failure:
        """The row of a request whose prompt may have `budget` tokens, or why there is none."""
        try:
            return self._encode(request, budget)
        except PromptTooLong as error:
            reason = (
                f"the prompt is {error.tokens} tokens long with every user field left out, and the context "
                f"of {self._context} has room for {error.budget}"
            )
        except Exception as error:  # Tokenizers and image processors raise many types; the row alone pays.
            reason = f"the request could not be prepared: {type(error).__name__}: {error}"
        return Failure(reason, retryable=False)

    def _encode(self, request: Request, budget: int) -> Row | Failure:
        if request.image is not None and not self._family.sees:
            return Failure("the checkpoint takes no images", retryable=False)
        if request.image is None and not self._family.reads:
            return Failure("the checkpoint answers only with an image", retryable=False)
        if self._family.chat and not request.prompt.text.strip():
            return Failure("the prompt is empty", retryable=False)
        fitted = self._chat.fit(request.prompt, budget, image=request.image is not None)
        if request.image is None:
            ids = torch.tensor([fitted.ids], dtype=torch.long)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            return Row(inputs, len(fitted.ids), fitted.cut)
        try:
            with Image.open(io.BytesIO(request.image)) as opened:
                image = opened.convert("RGB")
        except UnidentifiedImageError:  # its own words hold an address, which is another one each time
            return Failure("the image cannot be read: its bytes are in no known format", retryable=False)
        except Exception as error:  # Pillow's decoders raise many types on broken bytes.
            return Failure(f"the image cannot be read: {type(error).__name__}: {error}", retryable=False)
        row = self._with_image(fitted, image)
        if row.tokens <= budget:
            return row
        # How many tokens the image takes shows only now: cut again, from the start, with them taken off.
        extra = row.tokens - len(fitted.ids)
        if extra >= budget:
            reason = f"the image takes {extra} tokens, and the context of {self._context} has room for {budget}"
            return Failure(reason, retryable=False)
        return self._with_image(self._chat.fit(request.prompt, budget - extra, image=True), image)

    def _with_image(self, fitted: Cut, image: Image.Image) -> Row:
        assert self._processor is not None  # `sees` families are loaded with one
        written = self._chat.write(fitted.text, image=True)
        made = self._processor(
            text=[written],
            images=[image],
            add_special_tokens=self._chat.adds_special_tokens(written),
            return_tensors="pt",
        )
        inputs = dict(made)
        return Row(inputs, inputs["input_ids"].shape[1], fitted.cut)


def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Stack rows to a batch: tokens padded on the left, tiles and pixels of images after the last with zeros.

    Padding repeats a row's own last token, which the attention mask hides. So whatever looks at the ids
    (a repetition penalty, the places of images) finds in a padded row what it finds in the row alone.
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
