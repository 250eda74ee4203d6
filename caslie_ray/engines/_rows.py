"""From a request to a row that fits the context, and from rows of tensors to a batch."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn import functional

from caslie_ray.engines._chat import Chat
from caslie_ray.engines._families import Family
from caslie_ray.engines.base import Failure, Request
from caslie_ray.engines.cutting import Cut, PromptTooLong

__all__ = ["Encoder", "Row", "TensorRow", "TensorRows", "collate"]

# Tensors with the prompt's tokens along their second dimension; images lie along the others.
_ALONG_TOKENS = ("input_ids", "attention_mask", "token_type_ids", "cross_attention_mask")


class Processor(Protocol):
    """The part of a transformers processor that is used here."""

    def __call__(
        self, *, text: list[str], images: list[Image.Image], add_special_tokens: bool, return_tensors: str
    ) -> Mapping[str, Tensor]: ...


class Row(Protocol):
    """One request, ready for the model."""

    @property
    def tokens(self) -> int:
        """Tokens of the prompt, those of the image included."""
        ...

    @property
    def cut(self) -> bool:
        """Whether user fields lost words."""
        ...

    @property
    def captions_cut(self) -> bool:
        """Whether captions in the prompt lost words."""
        ...


AnyRow = TypeVar("AnyRow", bound=Row)


class Encoder(Generic[AnyRow]):
    """Turns requests into rows, one at a time, so that none can spoil another.

    Args:
        chat: writes the prompts.
        family: what the checkpoint takes.
        context: tokens of prompt and answer together, for messages.
        adapters: names of the adapters that a request may ask for.
        build: makes the row of a prompt that fits, and its image if it has one.
    """

    def __init__(
        self,
        chat: Chat,
        family: Family,
        context: int,
        adapters: Collection[str],
        build: Callable[[Cut, Image.Image | None], AnyRow],
    ) -> None:
        self._chat = chat
        self._family = family
        self._context = context
        self._adapters = adapters
        self._build = build

    def __call__(self, request: Request, budget: int) -> AnyRow | Failure:
        """The row of a request whose prompt may have `budget` tokens, or why there is none."""
        try:
            return self._encode(request, budget)
        except PromptTooLong as error:
            reason = (
                f"the prompt is {error.tokens} tokens long with every user field and caption left out, and the"
                f" context of {self._context} has room for {error.budget}"
            )
        except Exception as error:  # Tokenizers and image processors raise many types; the row alone pays.
            reason = f"the request could not be prepared: {type(error).__name__}: {error}"
        return Failure(reason, retryable=False)

    def _encode(self, request: Request, budget: int) -> AnyRow | Failure:
        if request.image is not None and not self._family.sees:
            return Failure("the checkpoint takes no images", retryable=False)
        if request.image is None and not self._family.reads:
            return Failure("the checkpoint answers only with an image", retryable=False)
        if request.adapter is not None and request.adapter not in self._adapters:
            known = ", ".join(self._adapters) or "none"
            return Failure(f"there is no adapter {request.adapter!r}; there are: {known}", retryable=False)
        if self._family.chat and not request.prompt.text.strip():
            return Failure("the prompt is empty", retryable=False)
        fitted = self._chat.fit(request.prompt, budget, image=request.image is not None)
        if request.image is None:
            return self._build(fitted, None)
        try:
            with Image.open(io.BytesIO(request.image)) as opened:
                image = opened.convert("RGB")
        except UnidentifiedImageError:  # its own words hold an address, which is another one each time
            return Failure("the image cannot be read: its bytes are in no known format", retryable=False)
        except Exception as error:  # Pillow's decoders raise many types on broken bytes.
            return Failure(f"the image cannot be read: {type(error).__name__}: {error}", retryable=False)
        row = self._build(fitted, image)
        if row.tokens <= budget:
            return row
        # How many tokens the image takes shows only now: cut again, from the start, with them taken off.
        extra = row.tokens - len(fitted.ids)
        if extra >= budget:
            reason = f"the image takes {extra} tokens, and the context of {self._context} has room for {budget}"
            return Failure(reason, retryable=False)
        return self._build(self._chat.fit(request.prompt, budget - extra, image=True), image)


@dataclass(frozen=True, slots=True)
class TensorRow:
    """A row as the tensors that a transformers model takes.

    Attributes:
        inputs: keyword arguments of the model, each with a batch dimension of 1.
        tokens: tokens of the prompt, those of the image included.
        cut: whether user fields lost words.
        captions_cut: whether captions in the prompt lost words.
    """

    inputs: dict[str, Tensor]
    tokens: int
    cut: bool
    captions_cut: bool = False


class TensorRows:
    """Makes rows of tensors.

    Args:
        chat: writes the prompts.
        processor: prepares images together with text; None for a text checkpoint.
    """

    def __init__(self, chat: Chat, processor: Processor | None) -> None:
        self._chat = chat
        self._processor = processor

    def __call__(self, fitted: Cut, image: Image.Image | None) -> TensorRow:
        """The row of a prompt and its image."""
        if image is None:
            ids = torch.tensor([fitted.ids], dtype=torch.long)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            return TensorRow(inputs, len(fitted.ids), fitted.cut, fitted.captions_cut)
        assert self._processor is not None  # `sees` families are loaded with one
        written = self._chat.write(fitted.text, image=True)
        made = self._processor(
            text=[written],
            images=[image],
            add_special_tokens=self._chat.adds_special_tokens(written),
            return_tensors="pt",
        )
        inputs = dict(made)
        return TensorRow(inputs, inputs["input_ids"].shape[1], fitted.cut, fitted.captions_cut)


def collate(rows: Sequence[TensorRow]) -> dict[str, Tensor]:
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
