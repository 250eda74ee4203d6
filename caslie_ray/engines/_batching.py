"""Which requests share a batch, and what becomes of a batch that fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from caslie_ray.engines.base import Failure
from caslie_ray.errors import EngineError

__all__ = ["TokenLimit", "plan", "run_batches"]

Answer = TypeVar("Answer")
Batch = list[int]


# Successful batches after which a lowered limit is raised again, and by how much.
_PATIENCE = 16
_GROWTH = 1.25


class TokenLimit:
    """The tokens and rows of a batch, lowered when memory runs out and raised again while batches succeed.

    A failure halves the batch. A neighbour on the same device may have caused it, so both limits grow back by a
    quarter after every 16 batches in a row that succeed, up to their initial values. The row limit is for images:
    the memory of a vision encoder depends on their number, not on the length of the prompts.

    Args:
        most: initial limit of tokens; it is never exceeded.
        most_rows: initial limit of rows; it is never exceeded.
    """

    def __init__(self, most: int, most_rows: int) -> None:
        self.tokens = most
        self.rows = most_rows
        self._most = most
        self._most_rows = most_rows
        self._good = 0

    def failed(self, tokens: int, rows: int) -> None:
        """Lower the limits to half of the batch that did not fit.

        Args:
            tokens: of the batch, padding and answers included.
            rows: of the batch.
        """
        self.tokens = max(1, min(self.tokens, tokens // 2))
        self.rows = max(1, min(self.rows, rows // 2))
        self._good = 0

    def succeeded(self) -> None:
        """Count a batch that did fit."""
        self._good += 1
        if self._good >= _PATIENCE and (self.tokens < self._most or self.rows < self._most_rows):
            self.tokens = min(self._most, math.ceil(self.tokens * _GROWTH))
            self.rows = min(self._most_rows, math.ceil(self.rows * _GROWTH))
            self._good = 0


def plan(lengths: Sequence[int], size: int, tokens: int, alone_above: int | None = None) -> list[Batch]:
    """Put rows of like length together, the longest first, so that a batch too large shows at once.

    Args:
        lengths: tokens of each row, answer included.
        size: rows at most in a batch.
        tokens: tokens at most in a batch, padding included; a longer row runs alone.
        alone_above: a row with more tokens than this shares no batch.

    Returns:
        Indices of the rows of each batch; each row once.
    """
    batches: list[Batch] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        alone = alone_above is not None and longest > alone_above
        if batches and not alone and len(batches[-1]) < size and longest * (len(batches[-1]) + 1) <= tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = lengths[index]
    return batches


def run_batches(
    batches: Sequence[Batch],
    run: Callable[[Batch], Sequence[Answer]],
    *,
    out_of_memory: Callable[[Exception], bool],
    fatal: Callable[[Exception], bool],
    recover: Callable[[], None],
) -> Iterator[tuple[int, Answer | Failure]]:
    """Answer every row; a batch that fails is halved until the row that is to blame stands alone.

    Args:
        batches: indices of rows.
        run: answers a batch, one answer a row in its order.
        out_of_memory: tells whether an exception is a lack of memory: alone, such a row may be tried again.
        fatal: tells whether an exception means that the device is lost, so that no other row can be answered.
        recover: frees what a failed batch has left behind.

    Yields:
        Index of a row, and its answer or why it has none.

    Raises:
        EngineError: a fatal exception.
    """
    waiting = [list(batch) for batch in reversed(batches)]
    while waiting:
        batch = waiting.pop()
        try:
            answers = run(batch)
        except Exception as error:  # Whatever a model raises must cost only the rows that raise it.
            if fatal(error):
                raise EngineError(f"the device is lost: {error}") from error
            memory = out_of_memory(error)
            reason = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
        else:
            yield from zip(batch, answers, strict=True)
            continue
        recover()
        if len(batch) == 1:
            what = "out of memory with this request alone" if memory else "the model failed on this request"
            yield batch[0], Failure(f"{what}: {reason}", retryable=memory)
        else:
            half = len(batch) // 2
            waiting += [batch[half:], batch[:half]]
