"""How well the verdicts alone, without captions or text, predict the true answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from caslie_ray.intervals import Interval
from caslie_ray.verdict_bits._counts import BitCounts

__all__ = ["mutual_information", "predictions_of_bits"]

_CELLS = 2_000_000  # cells of resampled tables at a time, which bounds memory
_SEED = 0
_LIMITS = (2.5, 97.5)

Counts = Mapping[str, Mapping[str, int]]
"""Samples by verdict bits and answer."""
Table = npt.NDArray[np.float64]


def predictions_of_bits(counts: BitCounts, resamples: int) -> dict[str, Any]:
    """Return, by the task's code and test split, what the verdict bits alone predict.

    A pattern of bits predicts its most frequent answer in training; a pattern that is not in training predicts the
    most frequent answer of all. `majority` is the accuracy of always predicting the latter. Intervals are 95%, by
    resampling the samples of the split.

    Args:
        counts: samples by task, split, bits and answer.
        resamples: bootstrap resamples.

    Returns:
        For each task that has training samples and each of `ind` and `ood`: `accuracy`, `majority` and their difference
        `gain`, each with its interval; `mutual_information` of bits and answer in bits, with its interval; `n`, the
        number of samples.
    """
    found: dict[str, Any] = {}
    for code, splits in counts.items():
        if not splits.get("train"):
            continue
        for split in ("ind", "ood"):
            if tested := splits.get(split):
                found.setdefault(code, {})[split] = _predicted(splits["train"], tested, resamples)
    return found


def _predicted(train: Counts, tested: Counts, resamples: int) -> dict[str, Any]:
    totals: dict[str, int] = {}
    for answers in train.values():
        for answer, count in answers.items():
            totals[answer] = totals.get(answer, 0) + count
    usual = _most_frequent(totals)
    table, names = _table(tested)
    columns = {name: at for at, name in enumerate(names)}
    by_bits, by_class = np.zeros_like(table), np.zeros_like(table)
    for at, bits in enumerate(tested):
        guess = _most_frequent(train[bits]) if bits in train else usual
        if guess in columns:
            by_bits[at, columns[guess]] = 1.0
        if usual in columns:
            by_class[at, columns[usual]] = 1.0
    total = table.sum()
    drawn = _resampled(table, resamples)
    shares = {"accuracy": by_bits, "majority": by_class, "gain": by_bits - by_class}
    return {
        **{name: _share(table, right, drawn)._asdict() for name, right in shares.items()},
        "mutual_information": mutual_information(tested, resamples)._asdict(),
        "n": int(total),
    }


def _most_frequent(answers: Mapping[str, int]) -> str:
    return max(sorted(answers), key=lambda answer: answers[answer])


def _share(table: Table, right: Table, drawn: Table) -> Interval:
    shares = (drawn * right.ravel()).sum(1) / table.sum()
    low, high = np.percentile(shares, _LIMITS)
    return Interval(float((table * right).sum() / table.sum()), float(low), float(high))


def mutual_information(counts: Counts, resamples: int) -> Interval:
    """Return the mutual information of verdict bits and answer in bits, with its 95% interval.

    The estimate has the Miller-Madow bias correction. The interval is the spread of the bootstrap around it, clipped
    at 0.

    Args:
        counts: samples by bits and answer.
        resamples: bootstrap resamples.
    """
    table, _ = _table(counts)
    value = float(_information(table[None])[0])
    drawn = _information(_resampled(table, resamples).reshape(-1, *table.shape))
    low, high = np.percentile(drawn - drawn.mean(), _LIMITS)
    return Interval(max(0.0, value), max(0.0, value + float(low)), max(0.0, value + float(high)))


def _table(counts: Counts) -> tuple[Table, list[str]]:
    names = sorted({answer for answers in counts.values() for answer in answers})
    return np.array([[answers.get(name, 0) for name in names] for answers in counts.values()], dtype=np.float64), names


def _resampled(table: Table, resamples: int) -> Table:
    """Bootstrap resamples of a table, of shape ``(resamples, table.size)``."""
    rng = np.random.default_rng(_SEED)
    total, shares = int(table.sum()), table.ravel() / table.sum()
    at_once = max(1, _CELLS // table.size)
    parts = [
        rng.multinomial(total, shares, size=min(at_once, resamples - start)).astype(np.float64)
        for start in range(0, resamples, at_once)
    ]
    return np.concatenate(parts)


def _information(tables: Table) -> Table:
    """Bias-corrected mutual information in bits, per table of shape ``(tables, bits, answers)``."""
    totals = tables.sum((1, 2))
    rows, columns = tables.sum(2), tables.sum(1)

    def entropy(counts: Table) -> tuple[Table, Table]:
        shares = counts / totals[:, None]
        logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
        return -(shares * logs).sum(1), (counts > 0).sum(1)

    flat = tables.reshape(len(tables), -1)
    (of_rows, n_rows), (of_columns, n_columns), (of_both, n_both) = map(entropy, (rows, columns, flat))
    bias = (n_both - n_rows - n_columns + 1) / (2 * totals)
    found: Table = (of_rows + of_columns - of_both - bias) / math.log(2)
    return found
