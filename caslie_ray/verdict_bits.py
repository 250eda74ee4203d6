"""Counts of verdicts by true answer: how well verdicts predict the answer without their captions.

A sample's verdict bits are a character for each image in order: ``1`` where the prompt of `caslie` has its caption,
``0`` where it has none. A model that saw the bits alone could answer as often as the most frequent answer of each
pattern; `caslie_ray.evaluation` measures that.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from caslie_ray.tasks import TASKS

__all__ = ["OTHER_BITS", "BitCounts", "VerdictBits"]

OTHER_BITS = "other"
"""Represents all patterns beyond the first `_PATTERNS` of a task and split."""

_PATTERNS = 4096

BitCounts = Mapping[str, Mapping[str, Mapping[str, Mapping[str, int]]]]
"""Samples by the task's code, split, verdict bits and answer."""


class VerdictBits:
    """Counts samples by their verdict bits and answer. Its size does not grow with the samples.

    The answer is the label of the true option, or the option's place, from 1, where the task has no labels. Samples
    whose true option has no label are left out.
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
            used: for each image in order, whether its caption won.
        """
        task = TASKS[task_name]
        label = task.true_label(output, options)
        if label is None:
            return
        answer = label if task.labels else str(list(options).index(label) + 1)
        bits = "".join("1" if one else "0" for one in used)
        patterns = self._counts[task.code, split]
        if bits not in patterns and len(patterns) >= _PATTERNS:
            bits = OTHER_BITS
        patterns.setdefault(bits, Counter())[answer] += 1

    def as_dict(self) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
        """Return the counts as nested mappings, for JSON."""
        found: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
        for (code, split), patterns in sorted(self._counts.items()):
            found.setdefault(code, {})[split] = {bits: dict(answers) for bits, answers in sorted(patterns.items())}
        return found
