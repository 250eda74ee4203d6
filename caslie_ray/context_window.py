"""Whether uniM³'s prompts fit the context of its base, before a GPU is paid for.

`fuse` counts instructions exactly. Plans estimate: they read some files of a large run and scale the counts.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.engines.cutting import Fit
from caslie_ray.errors import EngineError
from caslie_ray.profiles import Model
from caslie_ray.prompts import Prompt
from caslie_ray.storage.run import Run

if TYPE_CHECKING:
    from caslie_ray.engines.trainable import Turns

__all__ = ["MOST_FILES", "ContextCheck", "FitCounts", "caption_room", "describe_fit", "evenly"]

MOST_FILES = 64
"""Maximum files of a table that a plan reads."""

_T = TypeVar("_T")


# Upper bound of what a chat template adds, for prompts that are not tokenized.
_TEMPLATE_TOKENS = 512
# English prose. Both figures are for estimates alone.
_BYTES_PER_TOKEN = 4
_TOKENS_PER_WORD = 1.4
# The label of a caption: "information from its image: ".
_LABEL_TOKENS = 8
# Longer fields are cut before captions are.
_FIELD_BYTES = 256


@dataclass
class FitCounts:
    """How many instructions of each variant lose something so that prompt and answer fit the context.

    Attributes:
        variants: counts by `instructions` and by the values of `Fit`, by variant.
        unknown: why prompts could not be measured; None if they were.
    """

    variants: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    unknown: str | None = None

    def add(self, other: FitCounts) -> None:
        """Add the counts of other instructions."""
        for variant, counts in other.variants.items():
            self.variants[variant].update(counts)
        self.unknown = self.unknown or other.unknown

    def as_json(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        return {"variants": {name: dict(counts) for name, counts in self.variants.items()}, "unknown": self.unknown}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FitCounts:
        """Return what `as_json` returned."""
        counts = cls(unknown=value["unknown"])
        counts.variants.update({name: Counter(found) for name, found in value["variants"].items()})
        return counts

    def summary(self, base: Model, scale: float = 1.0) -> dict[str, Any]:
        """Return the counts as a job's summary has them.

        Args:
            base: the model that reads the prompts.
            scale: the number of all instructions divided by that of the counted ones; it multiplies the counts.
        """
        variants = {
            name: {
                "instructions": round(counts["instructions"] * scale),
                "fields_cut": round(counts[Fit.FIELDS_CUT.value] * scale),
                "captions_cut": round(counts[Fit.CAPTIONS_CUT.value] * scale),
                "too_long": round(counts[Fit.TOO_LONG.value] * scale),
            }
            for name, counts in self.variants.items()
        }
        spec = base.spec()
        return {
            "model": base.name,
            "context": spec.context,
            "max_new_tokens": spec.max_new_tokens,
            "unknown": self.unknown,
            "variants": variants if self.unknown is None else {},
        }


class ContextCheck:
    """Counts instructions by what they lose so that prompt and answer fit the base's context.

    The base's tokenizer is loaded only when some prompt may be too long. If it cannot be read, the counts are unknown;
    nothing is raised.

    Args:
        base: the model that reads the prompts.
    """

    def __init__(self, base: Model) -> None:
        self.counts = FitCounts()
        self._base = base
        self._spec = base.spec()
        self._turns: Turns | None = None

    def add(self, variant: str, prompt: Prompt) -> None:
        """Count one instruction of a variant."""
        counts = self.counts.variants[variant]
        counts["instructions"] += 1
        if self.counts.unknown is None and not self._surely_fits(prompt):
            turns = self._load_turns()
            if turns is not None:
                counts[turns.fit_of(prompt, self._spec.max_new_tokens).value] += 1

    def summary(self, scale: float = 1.0) -> dict[str, Any]:
        """Return the counts as a job's summary has them; see `FitCounts.summary`."""
        return self.counts.summary(self._base, scale)

    def _surely_fits(self, prompt: Prompt) -> bool:
        """Return whether a prompt fits with any tokenizer: a token is at least one byte of text.

        A special token in the text is broken up by a space, which makes two characters three at worst.
        """
        return len(prompt.text.encode()) * 3 // 2 + _TEMPLATE_TOKENS <= self._spec.generate_budget

    def _load_turns(self) -> Turns | None:
        if self._turns is None:
            from caslie_ray.engines.trainable import load_turns  # imports torch, which takes seconds

            try:
                self._turns = load_turns(self._spec)
            except EngineError as error:
                self.counts.unknown = str(error)
        return self._turns


def evenly(items: Sequence[_T], most: int) -> list[_T]:
    """Return the items, or `most` evenly spaced ones of them if there are more."""
    if len(items) <= most:
        return list(items)
    return [items[(2 * n + 1) * len(items) // (2 * most)] for n in range(most)]


def describe_fit(fit: Mapping[str, Any], *, estimated: bool = False) -> str:
    """Return the result of `FitCounts.summary` as one line.

    Args:
        fit: the counts.
        estimated: whether they were scaled from a part of the instructions.
    """
    if fit["unknown"] is not None:
        return f"not known whether prompts fit the context of {fit['model']}: {fit['unknown']}"
    variants: Mapping[str, Mapping[str, int]] = fit["variants"]

    def by_variant(what: str) -> str:
        return " · ".join(f"{name} {counts[what]:,}" for name, counts in variants.items())

    most = max((counts["instructions"] for counts in variants.values()), default=0)
    too_long = by_variant("too_long") if any(counts["too_long"] for counts in variants.values()) else "0"
    about = "about " if estimated else ""
    return (
        f"{fit['model']} reads {fit['context']:,} tokens: {about}{by_variant('captions_cut')} of {most:,} lose words of"
        f" captions; {about}{too_long} do not fit"
    )


def caption_room(run: Run, base: Model, max_new_tokens: int, words: int | None) -> str | None:
    """Return, as one line, how much of the base's context captions may take; None for a run without samples.

    Reads `samples` one file at a time, up to `MOST_FILES` files; with more the counts are scaled. Assumes four bytes of
    text per token.

    Args:
        run: contains `samples`.
        base: the model that reads the captions.
        max_new_tokens: maximum tokens of a caption.
        words: word limit in the captioner's prompt; None for none.

    Raises:
        RunError: a file is damaged.
    """
    files = sorted(run.files("samples"))
    if not files:
        return None
    read = evenly(files, MOST_FILES)
    each = max_new_tokens
    if words is not None:
        each = min(each, math.ceil(words * _TOKENS_PER_WORD))
    budget = base.spec().generate_budget
    most = losing = 0
    for path in read:
        views, text = _views_and_bytes(run.read_file(path, ["instruction", "input", "options", "view_ids"]))
        tokens = views * (each + _LABEL_TOKENS) + text / _BYTES_PER_TOKEN
        most = max(most, int(views.max(initial=0)))
        losing += int(((tokens > budget) & (views > 0)).sum())
    limit = f" ({words:,} words)" if words is not None else ""
    about, part = (
        ("about ", f" ({len(read)} of {len(files):,} files were read)") if len(read) < len(files) else ("", "")
    )
    losing = round(losing * len(files) / len(read))
    outcome = f"uia prompts of {about}{losing:,} samples may lose words of captions" if losing else "they fit"
    return (
        f"up to {about}{most:,} × {each:,} tokens{limit} = {most * each:,} of {base.name}'s {base.context:,}:"
        f" {outcome}{part}"
    )


def _views_and_bytes(samples: pa.Table) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the number of images of each sample, and about how many bytes of its text are never cut."""
    rows = samples.num_rows
    instruction, given, options, view_ids = (
        pa.concat_arrays(samples[name].chunks) if samples[name].num_chunks else samples[name].combine_chunks()
        for name in ("instruction", "input", "options", "view_ids")
    )

    def per_row(lists: pa.Array, values: pa.Array) -> npt.NDArray[np.float64]:
        parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
        weights = values.fill_null(0).to_numpy(zero_copy_only=False)
        return np.bincount(parents, weights=weights, minlength=rows).astype(np.float64)

    views = per_row(view_ids, pc.is_valid(pc.list_flatten(view_ids)).cast(pa.int32()))
    fields = pc.binary_length(pc.struct_field(pc.list_flatten(given), "text"))
    text = per_row(given, pc.min_element_wise(fields, _FIELD_BYTES))
    text += per_row(options, pc.binary_length(pc.list_flatten(options)))
    text += pc.binary_length(instruction).fill_null(0).to_numpy(zero_copy_only=False)
    return views, text
