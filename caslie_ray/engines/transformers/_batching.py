"""Batching by length, and splitting of batches that fail."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from caslie_ray.engines._base import Failure
from caslie_ray.errors import EngineError

__all__ = ["TokenLimit", "plan", "run_batches"]

Answer = TypeVar("Answer")
Batch = list[int]


_GROWTH = 1.25
_GROW_AFTER = 16  # successful batches


class TokenLimit:
    """Adaptive limits on the tokens and rows of a batch.

    Out of memory halves both. Another process on the same device may have caused it, so both grow back by a quarter
    after every 16 consecutive successful batches, up to their initial values. The row limit is for images: the memory
    of a vision encoder depends on their number, not on the length of the prompts.

    Args:
        most: initial and maximum limit of tokens.
        most_rows: initial and maximum limit of rows.
    """

    def __init__(self, most: int, most_rows: int) -> None:
        self.tokens = most
        self.rows = most_rows
        self._most = most
        self._most_rows = most_rows
        self._successes = 0

    def failed(self, tokens: int, rows: int) -> None:
        """Lower the limits to half of the batch that did not fit.

        Args:
            tokens: tokens of the batch, including padding and answers.
            rows: rows of the batch.
        """
        self.tokens = max(1, min(self.tokens, tokens // 2))
        self.rows = max(1, min(self.rows, rows // 2))
        self._successes = 0

    def succeeded(self) -> None:
        """Record a batch that fit."""
        self._successes += 1
        if self._successes >= _GROW_AFTER and (self.tokens < self._most or self.rows < self._most_rows):
            self.tokens = min(self._most, math.ceil(self.tokens * _GROWTH))
            self.rows = min(self._most_rows, math.ceil(self.rows * _GROWTH))
            self._successes = 0


def plan(lengths: Sequence[int], size: int, tokens: int, alone_above: int | None = None) -> list[Batch]:
    """Group rows of similar length, the longest first, so that an oversized batch fails early.

    Args:
        lengths: tokens of each row, including the answer.
        size: maximum rows per batch.
        tokens: maximum tokens per batch, including padding; a longer row runs alone.
        alone_above: a row with more tokens than this runs alone.

    Returns:
        The row indices of each batch; each row occurs once.
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
    """Run batches; one that fails is bisected until the failing row is alone.

    Args:
        batches: row indices of each batch.
        run: returns one answer per row of a batch, in order.
        out_of_memory: whether an exception is a lack of memory; a single row that fails with it is retryable.
        fatal: whether an exception means that the device is lost, so that no other row can be answered.
        recover: frees the memory of a failed batch.

    Yields:
        Index of a row, and its answer or failure.

    Raises:
        EngineError: a fatal exception.
    """
    pending = [list(batch) for batch in reversed(batches)]
    while pending:
        batch = pending.pop()
        try:
            answers = run(batch)
        except Exception as error:  # any exception of a model must only fail the rows that raise it
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
            pending += [batch[half:], batch[:half]]
