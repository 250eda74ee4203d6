"""Encodes requests for a model: validation, truncation to the context, and image decoding, one request at a time."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar

from PIL import Image, UnidentifiedImageError

from caslie_ray.engines._architectures import Architecture
from caslie_ray.engines._base import Failure, Request
from caslie_ray.engines._chat import Chat
from caslie_ray.engines.cutting import Cut, PromptTooLong

__all__ = ["RequestEncoder", "Row"]


class Row(Protocol):
    """One request, encoded for the model."""

    @property
    def tokens(self) -> int:
        """Tokens of the prompt, including those of the image."""
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


class RequestEncoder(Generic[AnyRow]):
    """Encodes requests one at a time, so that a bad request only affects itself.

    Args:
        chat: renders the prompts.
        architecture: which inputs the checkpoint takes.
        context: tokens of prompt and answer together, for messages.
        adapters: names of the adapters that a request may use.
        build: makes the row from a prompt that fits and its image, if any.
    """

    def __init__(
        self,
        chat: Chat,
        architecture: Architecture,
        context: int,
        adapters: Collection[str],
        build: Callable[[Cut, Image.Image | None], AnyRow],
    ) -> None:
        self._chat = chat
        self._architecture = architecture
        self._context = context
        self._adapters = adapters
        self._build = build

    def __call__(self, request: Request, budget: int) -> AnyRow | Failure:
        """Return the row of a request whose prompt may have `budget` tokens, or why there is none."""
        try:
            return self._encode(request, budget)
        except PromptTooLong as error:
            reason = (
                f"the prompt is {error.tokens} tokens long with every user field and caption left out, and the"
                f" context of {self._context} has room for {error.budget}"
            )
        except Exception as error:  # tokenizers and image processors raise many types; only this request fails
            reason = f"the request could not be prepared: {type(error).__name__}: {error}"
        return Failure(reason, retryable=False)

    def _encode(self, request: Request, budget: int) -> AnyRow | Failure:
        if request.image is not None and not self._architecture.takes_images:
            return Failure("the checkpoint takes no images", retryable=False)
        if request.image is None and not self._architecture.takes_text_alone:
            return Failure("the checkpoint answers only with an image", retryable=False)
        if request.adapter is not None and request.adapter not in self._adapters:
            known = ", ".join(self._adapters) or "none"
            return Failure(f"there is no adapter {request.adapter!r}; there are: {known}", retryable=False)
        if self._architecture.has_chat_template and not request.prompt.text.strip():
            return Failure("the prompt is empty", retryable=False)
        if request.image is None:
            return self._build(self._chat.fit(request.prompt, budget, image=False, answer=request.answer_prefix), None)
        if request.answer_prefix:
            return Failure("a request with an image cannot have an answer_prefix", retryable=False)
        fitted = self._chat.fit(request.prompt, budget, image=True)
        try:
            with Image.open(io.BytesIO(request.image)) as opened:
                image = opened.convert("RGB")
        except UnidentifiedImageError:  # its own message has a memory address, which differs each time
            return Failure("the image cannot be read: its bytes are in no known format", retryable=False)
        except Exception as error:  # Pillow's decoders raise many types on broken bytes
            return Failure(f"the image cannot be read: {type(error).__name__}: {error}", retryable=False)
        row = self._build(fitted, image)
        if row.tokens <= budget:
            return row
        # The tokens that the image takes are only known now: cut the original prompt again to what they leave.
        extra = row.tokens - len(fitted.ids)
        if extra >= budget:
            reason = f"the image takes {extra} tokens, and the context of {self._context} has room for {budget}"
            return Failure(reason, retryable=False)
        return self._build(self._chat.fit(request.prompt, budget - extra, image=True), image)
