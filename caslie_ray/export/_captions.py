"""What an export needs of a caption: its text, the verdict, and the votes as shares and probabilities."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["CAPTIONED", "COLUMNS", "PROBABILITIES", "captions_of"]

PROBABILITIES = pa.list_(pa.struct([("voter", pa.string()), ("p_yes", pa.float64())]))
"""The voters in the order in which they were asked, with their probability of yes; null where a vote failed."""

CAPTIONED = pa.schema(
    [
        ("view_id", pa.string()),
        ("caption", pa.string()),
        ("verdict", pa.bool_()),
        ("yes_share", pa.float64()),
        ("probabilities", PROBABILITIES),
        ("error", pa.string()),
    ]
)
"""A view with a row in `captions`. `verdict` is null if `error` says why there is none."""

COLUMNS = ["view_id", "caption", "verdict", "votes", "error"]
"""The columns of `captions` that are read."""


def captions_of(rows: pa.Table) -> pa.Table:
    """Return rows of the table `captions` with what an export needs of them."""
    votes = rows["votes"].combine_chunks()
    share, probabilities = _voted(votes)
    failed = pc.is_valid(rows["error"])
    columns = [
        rows["view_id"],
        pc.utf8_trim_whitespace(pc.fill_null(rows["caption"], "")),
        pc.if_else(failed, pa.scalar(None, pa.bool_()), rows["verdict"]),
        share,
        probabilities,
        rows["error"],
    ]
    return pa.table(columns, schema=CAPTIONED)


def _voted(votes: pa.ListArray) -> tuple[pa.Array, pa.Array]:
    """Return the share of yes among valid votes, and the probabilities, of each view; null without votes."""
    flat = votes.flatten()
    parents = pc.list_parent_indices(votes).to_numpy(zero_copy_only=False)
    answers = pc.struct_field(flat, "answer")

    def counted(which: pa.Array) -> np.ndarray:
        chosen = pc.fill_null(which, False).to_numpy(zero_copy_only=False)
        return np.bincount(parents[chosen], minlength=len(votes))

    lengths = np.bincount(parents, minlength=len(votes))
    valid, yes = counted(pc.is_valid(answers)), counted(pc.equal(answers, "yes"))
    share = pa.array(yes / np.maximum(valid, 1), mask=valid == 0)
    chances = pc.struct_field(flat, "p_yes")
    chances = pc.if_else(pc.is_finite(chances), chances, pa.scalar(None, pa.float64()))
    named = pa.StructArray.from_arrays([pc.fill_null(pc.struct_field(flat, "voter"), ""), chances], ["voter", "p_yes"])
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return share, pa.ListArray.from_arrays(offsets, named, mask=pa.array(lengths == 0))
