"""Selects the examples of a step, and each worker's part of them: pure functions of step, seed and rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["batch_at", "share_of"]


def batch_at(step: int, count: int, batch: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the indices of the examples of an optimizer step, as a pure function of the arguments.

    Each epoch sees every example once, in a permutation of its own. The last batch of an epoch may be smaller.

    Args:
        step: from 0, over all epochs.
        count: number of examples.
        batch: examples per step.
        seed: of the permutations.
    """
    steps = -(-count // batch)
    epoch, place = divmod(step, steps)
    order = np.random.default_rng((seed, epoch)).permutation(count)
    return order[place * batch : (place + 1) * batch].astype(np.int64)


def share_of(
    indices: Sequence[int] | npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], rank: int, world: int
) -> list[int]:
    """Return one worker's part of a batch; all parts have about the same number of examples and total length.

    Args:
        indices: the examples of the step.
        lengths: the length of every example.
        rank: the worker's rank, from 0.
        world: number of workers.
    """
    longest_first = sorted((int(index) for index in indices), key=lambda index: (-int(lengths[index]), index))
    # Snake order, so no rank always gets the longer example.
    return [
        index
        for place, index in enumerate(longest_first)
        if rank == (place % world if (place // world) % 2 == 0 else world - 1 - place % world)
    ]
