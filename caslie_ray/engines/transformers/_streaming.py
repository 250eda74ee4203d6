"""Streaming of one answer out of transformers' `generate`, and its early end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from caslie_ray.engines._text_pieces import TextPieces

__all__ = ["PieceStreamer", "StopWhen"]


class PieceStreamer(BaseStreamer):
    """Calls `send` with each piece of the text of one sequence.

    Args:
        decode: the tokenizer's.
        send: takes the pieces.
    """

    def __init__(self, decode: Callable[..., Any], send: Callable[[str], None]) -> None:
        self._pieces = TextPieces(decode)
        self._send = send
        self._ids: list[int] = []
        self._prompt = True

    def put(self, value: Tensor) -> None:
        """Take tokens; the first are those of the prompt."""
        if self._prompt:
            self._prompt = False
            return
        self._ids += value.flatten().tolist()
        if piece := self._pieces.next(self._ids):
            self._send(piece)

    def end(self) -> None:
        """Send the rest."""
        if rest := self._pieces.next(self._ids, last=True):
            self._send(rest)


class StopWhen(StoppingCriteria):
    """Ends `generate` once an event is set."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        """Return for each sequence whether it ends now."""
        return torch.full((input_ids.shape[0],), self._stopped.is_set(), device=input_ids.device, dtype=torch.bool)
