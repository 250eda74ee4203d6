"""Whether prompts of uniM³ fit the context of its base, before a GPU is paid for.

After captioning, instructions are counted exactly. Before it, the room that captions will take is estimated.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.engines import EngineError
from caslie_ray.engines.cutting import Fit
from caslie_ray.profiles import Model
from caslie_ray.prompts import Prompt
from caslie_ray.runs import Run

if TYPE_CHECKING:
    from caslie_ray.engines.trainable import Turns

__all__ = ["ContextCheck", "caption_room", "describe_fit"]

log = logging.getLogger(__name__)

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

    def summary(self) -> dict[str, Any]:
        """Return the counts as a job's summary holds them."""
        variants = {
            name: {
                "instructions": counts["instructions"],
                "fields_cut": counts[Fit.FIELDS_CUT.value],
                "captions_cut": counts[Fit.CAPTIONS_CUT.value],
                "too_long": counts[Fit.TOO_LONG.value],
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


def describe_fit(fit: Mapping[str, Any]) -> str:
    """Return what `ContextCheck.summary` holds as one line."""
    if fit["unknown"] is not None:
        return f"not known whether prompts fit the context of {fit['model']}: {fit['unknown']}"
    variants: Mapping[str, Mapping[str, int]] = fit["variants"]

    def by_variant(what: str) -> str:
        return " · ".join(f"{name} {counts[what]:,}" for name, counts in variants.items())

    most = max((counts["instructions"] for counts in variants.values()), default=0)
    too_long = by_variant("too_long") if any(counts["too_long"] for counts in variants.values()) else "0"
    return (
        f"{fit['model']} reads {fit['context']:,} tokens: {by_variant('captions_cut')} of {most:,} lose words of"
        f" captions; {too_long} do not fit"
    )


def caption_room(run: Run, base: Model, max_new_tokens: int, words: int | None) -> str | None:
    """Return, as one line, how much of the base's context captions may take; None for a run without samples.

    Only counts and lengths are taken from `samples`, a file at a time. Text is taken to have four bytes per token.

    Args:
        run: holds `samples`.
        base: the model that reads the captions.
        max_new_tokens: maximum tokens of a caption.
        words: words that the captioner is asked not to exceed; None for no such limit.

    Raises:
        RunError: a file is not whole.
    """
    files = run.files("samples")
    if not files:
        return None
    each = max_new_tokens
    if words is not None:
        each = min(each, math.ceil(words * _TOKENS_PER_WORD))
    budget = base.spec().generate_budget
    most = losing = 0
    for path in files:
        views, text = _views_and_bytes(run.read_file(path, ["instruction", "input", "options", "view_ids"]))
        tokens = views * (each + _LABEL_TOKENS) + text / _BYTES_PER_TOKEN
        most = max(most, int(views.max(initial=0)))
        losing += int(((tokens > budget) & (views > 0)).sum())
    limit = f" ({words:,} words)" if words is not None else ""
    outcome = f"uia prompts of {losing:,} samples may lose words of captions" if losing else "they fit"
    return f"up to {most:,} × {each:,} tokens{limit} = {most * each:,} of {base.name}'s {base.context:,}: {outcome}"


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
