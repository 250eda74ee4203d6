"""Out-of-memory handling: run a computation that may fail, and halve the token limit per micro-batch."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from caslie_ray.engines.trainable import free_memory, is_out_of_memory

__all__ = ["OutOfMemory", "TokenLimit", "within_memory"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class OutOfMemory(NamedTuple):
    """A computation ran out of memory.

    Attributes:
        reason: first line of the error.
    """

    reason: str


def within_memory(compute: Callable[[], _T]) -> _T | OutOfMemory:
    """Return the result of a computation; if it runs out of memory, free its tensors and return `OutOfMemory`."""
    try:
        return compute()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        failed = OutOfMemory(f"{type(error).__name__}: {error}".splitlines()[0])
    # Not in the except block: until it ends, the traceback holds the tensors of the failed pass.
    free_memory()
    return failed


class TokenLimit:
    """Token limit per micro-batch of one worker. It is kept across steps and only ever lowered.

    Args:
        tokens: initial limit, padding included.
        warn: called with a message for each new limit; logs it by default.
    """

    def __init__(self, tokens: int, warn: Callable[[str], object] = log.warning) -> None:
        self.tokens = tokens
        self._warn = warn

    def lower(self, failed: int) -> None:
        """Halve the limit after a micro-batch of `failed` tokens ran out of memory."""
        self.tokens = max(1, min(self.tokens, failed) // 2)
        self._warn(
            f"a worker ran out of memory on a micro-batch of {failed:,} tokens and goes on with at most"
            f" {self.tokens:,}; the result is the same. To begin with that: training.micro_tokens={self.tokens}"
        )
