"""Requests as vLLM's prompt inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

from caslie_ray.engines._chat import Chat
from caslie_ray.engines._tensor_inputs import Processor, TensorRows
from caslie_ray.engines.cutting import Cut

__all__ = ["VllmRow", "VllmRows"]


@dataclass(frozen=True, slots=True)
class VllmRow:
    """One request.

    Attributes:
        prompt: token ids, with one placeholder for the image, and the image if there is one.
        tokens: tokens of the prompt, including those of the image.
        cut: whether user fields lost words.
        captions_cut: whether captions in the prompt lost words.
    """

    prompt: dict[str, Any]
    tokens: int
    cut: bool
    captions_cut: bool = False


class VllmRows:
    """Builds `VllmRow`s. The tokens of an image depend only on its size, and are computed once per size.

    Args:
        chat: renders the prompts.
        processor: prepares images together with text; None for a text checkpoint.
    """

    def __init__(self, chat: Chat, processor: Processor | None) -> None:
        self._tensors = TensorRows(chat, processor)
        self._extra: dict[tuple[int, int], int] = {}

    def __call__(self, fitted: Cut, image: Image.Image | None) -> VllmRow:
        """Return the row of a prompt and its image."""
        prompt: dict[str, Any] = {"prompt_token_ids": list(fitted.ids)}
        if image is None:
            return VllmRow(prompt, len(fitted.ids), fitted.cut, fitted.captions_cut)
        if image.size not in self._extra:
            self._extra[image.size] = self._tensors(fitted, image).tokens - len(fitted.ids)
        prompt["multi_modal_data"] = {"image": image}
        return VllmRow(prompt, len(fitted.ids) + self._extra[image.size], fitted.cut, fitted.captions_cut)
