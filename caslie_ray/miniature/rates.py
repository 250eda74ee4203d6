"""Measures how often images are useful, useless or misleading, and how well that alone predicts a task's labels.

Run as: python -m caslie_ray.miniature.rates [--samples N] [--seed N] [--domain tools|sports]

Samples are drawn, images are not. A verdict here is the true usefulness, as perfect voters would decide.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, get_args

from caslie_ray.miniature._samples import MAKERS, World
from caslie_ray.miniature.catalogue import Domain
from caslie_ray.miniature.truth import Usefulness
from caslie_ray.tasks import find_task
from caslie_ray.verdict_bits import VerdictBits, predictions_of_bits

__all__ = ["ALL", "TaskRates", "main", "rates_of"]

ALL = "all"
"""All labels of a task together."""

_WORLD_SAMPLES = 200  # drawn from one shelf of products
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class TaskRates:
    """The rates of one task.

    Attributes:
        samples: number of samples drawn.
        counts: images by label (or position of the correct option, from 1; `ALL` for all), position of the image in the
            sample, and usefulness.
        bits: how well the usefulness of the images alone predicts labels, from `predictions_of_bits`.
    """

    samples: int
    counts: Mapping[tuple[str, int], Counter[Usefulness]]
    bits: Mapping[str, Any]

    @property
    def labels(self) -> list[str]:
        return sorted({label for label, _ in self.counts} - {ALL})

    def rate(self, label: str, position: int, usefulness: Usefulness) -> float:
        """Return the fraction of images at a position with this usefulness, among samples of a label."""
        counts = self.counts[label, position]
        return counts[usefulness] / counts.total()

    def mean(self, label: str, usefulness: Usefulness) -> float:
        """Return the fraction of a label's images with this usefulness, at all positions."""
        positions = [counts for (name, _), counts in self.counts.items() if name == label]
        return sum(counts[usefulness] for counts in positions) / sum(counts.total() for counts in positions)

    @property
    def furthest(self) -> float:
        """The largest difference between a label's rate and the task's, over positions and usefulness."""
        return max(
            abs(self.rate(label, position, usefulness) - self.rate(ALL, position, usefulness))
            for label, position in self.counts
            for usefulness in get_args(Usefulness)
        )


def rates_of(task: str, samples: int, *, seed: int = 0, domain: Domain = "tools") -> TaskRates:
    """Draw samples of a task from many shelves; every second shelf trains the majority table.

    Args:
        task: its code.
        samples: number of samples to draw.
        seed: seed of the worlds.
        domain: domain of the products.

    Raises:
        KeyError: there is no such task.
    """
    bits = VerdictBits()
    counts: dict[tuple[str, int], Counter[Usefulness]] = defaultdict(Counter)
    found = find_task(task)
    for start in range(0, samples, _WORLD_SAMPLES):
        world = World(Random(f"{seed}/{task}/{start}"), domain)
        split = "ind" if start // _WORLD_SAMPLES % 2 else "train"
        for _ in range(min(_WORLD_SAMPLES, samples - start)):
            drawn = MAKERS[task](world)
            label = drawn.output if found.labels else str(drawn.options.index(drawn.output) + 1)
            for position, view in enumerate(drawn.views):
                for name in (label, ALL):
                    counts[name, position][view.usefulness] += 1
            used = [view.usefulness == "useful" for view in drawn.views]
            bits.add(found.name, split, drawn.options, drawn.output, used)
    return TaskRates(samples, dict(counts), predictions_of_bits(bits.as_dict(), _RESAMPLES)[task]["ind"])


def _table(found: Mapping[str, TaskRates]) -> str:
    lines = ["| task | useful | useless | misleading | largest deviation | bits over majority | mutual information |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for task, rates in found.items():
        shares = " | ".join(f"{rates.mean(ALL, name):.1%}" for name in get_args(Usefulness))
        gain, shared = rates.bits["gain"], rates.bits["mutual_information"]
        lines.append(
            f"| {task} | {shares} | {rates.furthest:.1%} | {gain['value']:+.1%} [{gain['low']:+.1%},"
            f" {gain['high']:+.1%}] | {shared['value']:.4f} [{shared['low']:.4f}, {shared['high']:.4f}] |"
        )
    lines += ["", "| task, label | useful | useless | misleading |", "| --- | --- | --- | --- |"]
    for task, rates in found.items():
        for label in rates.labels:
            shares = " | ".join(f"{rates.mean(label, name):.1%}" for name in get_args(Usefulness))
            lines.append(f"| {task}, {label} | {shares} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables. Returns the exit code: 0, or 2 for wrong arguments (from argparse)."""
    parser = argparse.ArgumentParser(prog="python -m caslie_ray.miniature.rates", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--samples", type=int, default=40_000, help="samples per task (40000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--domain", choices=get_args(Domain), default="tools")
    chosen = parser.parse_args(arguments)
    print(_table({task: rates_of(task, chosen.samples, seed=chosen.seed, domain=chosen.domain) for task in MAKERS}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
