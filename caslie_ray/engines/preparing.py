"""What the engines do before a model runs, alone, so that its time can be measured."""

from __future__ import annotations

from caslie_ray.engines._reader import read_settings
from caslie_ray.engines._rows import Encoder, TensorRow, TensorRows
from caslie_ray.engines.base import Failure, Request
from caslie_ray.engines.cutting import PromptTooLong
from caslie_ray.engines.spec import EngineSpec

__all__ = ["Preparer"]


class Preparer:
    """Tokenizes prompts and decodes images for one checkpoint; loads no weights.

    Raises:
        EngineError: the checkpoint cannot be read.
    """

    def __init__(self, spec: EngineSpec) -> None:
        reader = read_settings(spec)
        self._chat = reader.chat
        self._encode = Encoder(reader.chat, reader.family, spec.context, (), TensorRows(reader.chat, reader.processor))

    def tokenize(self, request: Request, budget: int) -> int:
        """Write a prompt in the chat template and tokenize it, the image left out; return its tokens, 0 on failure."""
        try:
            return len(self._chat.fit(request.prompt, budget, image=request.image is not None).ids)
        except PromptTooLong:
            return 0

    def prepare(self, request: Request, budget: int) -> TensorRow | Failure:
        """Do all that is done before the model runs: tokenize the prompt; decode, resize and normalise the image."""
        return self._encode(request, budget)
