"""Splits a text into pieces while its tokens are generated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["TextPieces"]

_INCOMPLETE = "\ufffd"  # some bytes of a character


class TextPieces:
    """Pieces that together are the text that `decode` returns for all tokens, stripped.

    Args:
        decode: the tokenizer's.
    """

    def __init__(self, decode: Callable[..., Any]) -> None:
        self._decode = decode
        self._sent = ""

    def next(self, ids: Sequence[int], *, last: bool = False) -> str:
        """Return the text since the previous piece; empty where it is white space or an incomplete character.

        Args:
            ids: all tokens up to now.
            last: whether no token follows.
        """
        text = str(self._decode(ids, skip_special_tokens=True)).strip()
        if not text.startswith(self._sent) or (text.endswith(_INCOMPLETE) and not last):
            return ""
        piece = text[len(self._sent) :]
        self._sent = text
        return piece
