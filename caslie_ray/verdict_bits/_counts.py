"""Counts verdicts by true answer, to measure how well verdicts alone predict the answer.

A sample's verdict bits are one character per image, in order: ``1`` if the prompt of `caslie` has its caption, else
``0``. A model that saw only the bits could answer with the most frequent answer of each pattern;
`caslie_ray.evaluation` measures its accuracy.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from caslie_ray.tasks import TASKS

__all__ = ["OTHER_BITS", "BitCounts", "VerdictBits"]

OTHER_BITS = "other"
"""Stands for all patterns beyond the first `_PATTERNS` of a task and split."""

_PATTERNS = 4096

BitCounts = Mapping[str, Mapping[str, Mapping[str, Mapping[str, int]]]]
"""Number of samples by task code, split, verdict bits and answer."""


class VerdictBits:
    """Counts samples by verdict bits and answer. Its size is bounded, whatever the number of samples.

    The answer is the label of the true option or, if the task has no labels, the option's position, from 1. Samples
    whose true answer is none of their options are left out.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], dict[str, Counter[str]]] = defaultdict(dict)

    def add(self, task_name: str, split: str, options: Sequence[str], output: str, used: Iterable[bool]) -> None:
        """Count one sample.

        Args:
            task_name: its task.
            split: its split.
            options: its options; empty where those of the task count.
            output: its true answer.
            used: for each image in order, whether its verdict is yes.
        """
        task = TASKS[task_name]
        label = task.true_label(output, options)
        if label is None:
            return
        answer = label if task.labels else str(list(options).index(label) + 1)
        self._add(task.code, split, "".join("1" if one else "0" for one in used), {answer: 1})

    def merge(self, counts: BitCounts) -> None:
        """Add the counts of other samples, as `as_dict` returned them."""
        for code, splits in counts.items():
            for split, patterns in splits.items():
                for bits, answers in patterns.items():
                    self._add(code, split, bits, answers)

    def _add(self, code: str, split: str, bits: str, answers: Mapping[str, int]) -> None:
        patterns = self._counts[code, split]
        if bits not in patterns and len(patterns) >= _PATTERNS:
            bits = OTHER_BITS
        patterns.setdefault(bits, Counter()).update(answers)

    def as_dict(self) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
        """Return the counts as nested mappings, for JSON."""
        found: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
        for (code, split), patterns in sorted(self._counts.items()):
            found.setdefault(code, {})[split] = {bits: dict(answers) for bits, answers in sorted(patterns.items())}
        return found
