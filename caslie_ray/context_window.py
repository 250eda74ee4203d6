"""Whether prompts of uniM³ fit the context of its base, before a GPU is paid for.

`fuse` counts instructions exactly. Plans estimate: of a large run they read some files and scale the counts.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
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

__all__ = ["MOST_FILES", "ContextCheck", "caption_room", "describe_fit", "evenly"]

log = logging.getLogger(__name__)

MOST_FILES = 64
"""Files of samples that a plan reads."""

_T = TypeVar("_T")


# Before the tokenizer is read, its template is taken to add no more tokens than this.
_TEMPLATE_TOKENS = 512
# English prose. Both figures are for estimates alone.
_BYTES_PER_TOKEN = 4
_TOKENS_PER_WORD = 1.4
# The label of a caption: "information from its image: ".
_LABEL_TOKENS = 8
# Longer fields give way before captions do.
_FIELD_BYTES = 256


class ContextCheck:
    """Counts instructions by what they lose so that prompt and answer fit the base's context.

    The base's tokenizer is read only once some prompt may be too long. Where it cannot be read, the counts are not
    known, which is logged as a warning; nothing is raised.

    Args:
        base: the model that reads the prompts.
    """

    def __init__(self, base: Model) -> None:
        self._base = base
        self._spec = base.spec()
        self._turns: Turns | None = None
        self._unknown: str | None = None
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, variant: str, prompt: Prompt) -> None:
        """Count one instruction of a variant."""
        counts = self._counts[variant]
        counts["instructions"] += 1
        if self._unknown is None and not self._surely_fits(prompt):
            turns = self._reader()
            if turns is not None:
                counts[turns.fit_of(prompt, self._spec.max_new_tokens).value] += 1

    def summary(self, scale: float = 1.0) -> dict[str, Any]:
        """Return the counts as a job's summary holds them.

        Args:
            scale: the number of all instructions divided by that of the counted ones; it multiplies the counts.
        """
        variants = {
            name: {
                "instructions": round(counts["instructions"] * scale),
                "fields_cut": round(counts[Fit.FIELDS_CUT.value] * scale),
                "captions_cut": round(counts[Fit.CAPTIONS_CUT.value] * scale),
                "too_long": round(counts[Fit.TOO_LONG.value] * scale),
            }
            for name, counts in self._counts.items()
        }
        return {
            "model": self._base.name,
            "context": self._spec.context,
            "max_new_tokens": self._spec.max_new_tokens,
            "unknown": self._unknown,
            "variants": variants if self._unknown is None else {},
        }

    def _surely_fits(self, prompt: Prompt) -> bool:
        """Return whether a prompt fits with any tokenizer: a token stands for at least one byte of text.

        A special token in the text is broken up by a space, which makes two characters three at worst.
        """
        return len(prompt.text.encode()) * 3 // 2 + _TEMPLATE_TOKENS <= self._spec.generate_budget

    def _reader(self) -> Turns | None:
        if self._turns is None:
            from caslie_ray.engines.trainable import load_turns  # imports torch, which takes seconds

            try:
                self._turns = load_turns(self._spec)
            except EngineError as error:
                self._unknown = str(error)
                log.warning("whether prompts fit the context of %s is not known: %s", self._base.name, error)
        return self._turns


def evenly(items: Sequence[_T], most: int) -> list[_T]:
    """Return the items, or `most` of them with even spaces between where there are more."""
    if len(items) <= most:
        return list(items)
    return [items[(2 * n + 1) * len(items) // (2 * most)] for n in range(most)]


def describe_fit(fit: Mapping[str, Any], *, estimated: bool = False) -> str:
    """Return what `ContextCheck.summary` holds as one line.

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

    Only counts and lengths are taken from `samples`, a file at a time, of no more than `MOST_FILES` files: of more, the
    counts are scaled. Text is taken to have four bytes per token.

    Args:
        run: holds `samples`.
        base: the model that reads the captions.
        max_new_tokens: maximum tokens of a caption.
        words: words that the captioner is asked not to exceed; None for no such limit.

    Raises:
        RunError: a file is not whole.
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
    """Return the number of images of each sample, and the bytes of its text that no cut shortens, about."""
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
