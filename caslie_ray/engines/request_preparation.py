"""Tokenization and image preparation without a model, to measure their time."""

from __future__ import annotations

from caslie_ray.engines._base import Failure, Request
from caslie_ray.engines._preprocessor import read_preprocessor
from caslie_ray.engines._request_encoder import RequestEncoder
from caslie_ray.engines._tensor_inputs import TensorRow, TensorRows
from caslie_ray.engines.cutting import PromptTooLong
from caslie_ray.engines.spec import EngineSpec

__all__ = ["RequestPreparer"]


class RequestPreparer:
    """Tokenizes prompts and prepares images for one checkpoint; loads no weights.

    Raises:
        EngineError: the checkpoint cannot be read.
    """

    def __init__(self, spec: EngineSpec) -> None:
        _, _, processor, architecture, chat = read_preprocessor(spec)
        self._chat = chat
        self._encode = RequestEncoder(chat, architecture, spec.context, (), TensorRows(chat, processor))

    def tokenize(self, request: Request, budget: int) -> int:
        """Render a prompt in the chat template and tokenize it, without the image; return its tokens, 0 on failure."""
        try:
            return len(self._chat.fit(request.prompt, budget, image=request.image is not None).ids)
        except PromptTooLong:
            return 0

    def prepare(self, request: Request, budget: int) -> TensorRow | Failure:
        """Tokenize the prompt; decode, resize and normalize the image."""
        return self._encode(request, budget)
