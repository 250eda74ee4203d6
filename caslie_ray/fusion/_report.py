"""What is counted of fused samples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from caslie_ray.context_window import FitCounts
from caslie_ray.verdict_bits import VerdictBits

__all__ = ["Report"]


@dataclass
class Report:
    """Counts of some samples, and the files that hold their instructions.

    Attributes:
        variants: instructions by split, and captions shown as `captions`, by variant.
        fit: what prompts lose to fit the base's context.
        bits: verdicts by true answer.
        uncaptioned: views of samples that have no row in `captions`.
        written: files that were written; the others had the same rows already.
        files: size in bytes and modification time in nanoseconds of each file, by path.
    """

    variants: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    fit: FitCounts = field(default_factory=FitCounts)
    bits: VerdictBits = field(default_factory=VerdictBits)
    uncaptioned: int = 0
    written: int = 0
    files: dict[str, tuple[int, int]] = field(default_factory=dict)

    def count(self, instructions: Iterable[Mapping[str, Any]]) -> None:
        """Count rows of `instructions`."""
        for row in instructions:
            counts = self.variants[row["variant"]]
            counts[row["split"]] += 1
            counts["captions"] += row["captions_used"]

    def add(self, other: Mapping[str, Any]) -> None:
        """Add the counts of other samples, as `as_json` returned them; their files are left out."""
        for name, counts in other["variants"].items():
            self.variants[name].update(counts)
        self.fit.add(FitCounts.from_json(other["fit"]))
        self.bits.merge(other["bits"])
        self.uncaptioned += other["uncaptioned"]
        self.written += other["written"]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "variants": {name: dict(counts) for name, counts in self.variants.items()},
            "fit": self.fit.as_json(),
            "bits": self.bits.as_dict(),
            "uncaptioned": self.uncaptioned,
            "written": self.written,
            "files": self.files,
        }
