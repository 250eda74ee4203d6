"""A view, its answers, and its row of `captions`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from caslie_ray.hashing import content_id
from caslie_ray.prompts import Prompt, read_spans
from caslie_ray.quality import answer_of, count
from caslie_ray.roles import ResolvedLineup
from caslie_ray.storage.schemas import SCHEMAS

__all__ = [
    "CaptionAnswer", "Row", "View", "VoteAnswer", "caption_rows", "order_of", "read_views", "signature", "view_of",
]  # fmt: skip


class View(NamedTuple):
    """One row of `views`."""

    view_id: str
    image_id: str
    task: str
    caption_prompt: Prompt
    quality_prompt: Prompt
    given_caption: str | None


class CaptionAnswer(NamedTuple):
    """A caption, or why there is none.

    Attributes:
        key: key of the answer.
        text: the caption; None if it failed.
        tokens: tokens of the prompt and of the caption.
        cut: whether the prompt was shortened to fit the context.
        error: why there is no caption.
        retryable: whether the same request may succeed later.
        truncated: whether the caption reached the captioner's `max_new_tokens`; None if unknown: it came with the data,
            or was written before this was recorded.
    """

    key: str
    text: str | None
    tokens: int = 0
    cut: bool = False
    error: str | None = None
    retryable: bool = False
    truncated: bool | None = None


class VoteAnswer(NamedTuple):
    """One voter's probability of yes, or why there is none; attributes as in `CaptionAnswer`."""

    key: str
    p_yes: float | None
    tokens: int = 0
    cut: bool = False
    error: str | None = None
    retryable: bool = False

    @property
    def answer(self) -> str | None:
        """Yes, no, or None if the vote failed."""
        return None if self.p_yes is None else answer_of(self.p_yes)


@dataclass
class Row:
    """A view with its answers so far.

    Attributes:
        view: the view.
        caption: its caption; None if it is not known yet, or not wanted (text only).
        votes: names and answers of the voters asked, in order.
        waits_for: name of the model whose answer is missing; None if the row is complete.
    """

    view: View
    caption: CaptionAnswer | None = None
    votes: list[tuple[str, VoteAnswer]] = field(default_factory=list)
    waits_for: str | None = None

    @property
    def caption_text(self) -> str:
        """The text of the caption, which must be known; empty if it failed."""
        assert self.caption is not None
        return self.caption.text or ""

    def finished(self, lineup: ResolvedLineup) -> dict[str, Any]:
        """Return the row of `captions`, with the verdict."""
        caption = self.caption
        verdict, error = False, None
        if caption is not None and caption.error is not None:
            error = caption.error
        elif lineup.rule == "always":
            verdict = True
        elif lineup.rule == "majority":
            tally = count([vote.answer for _, vote in self.votes], len(lineup.voters))
            verdict = tally.verdict
            if not tally.has_quorum:
                reasons = "; ".join(f"{name}: {vote.error}" for name, vote in self.votes if vote.error)
                error = f"no quorum: {tally.yes + tally.no} valid votes of {len(lineup.voters)} voters ({reasons})"
        generated = caption is not None and lineup.captioner is not None
        return {
            "view_id": self.view.view_id,
            "image_id": self.view.image_id,
            "caption": caption.text if caption else None,
            "votes": [{"voter": name, "answer": vote.answer, **vote._asdict()} for name, vote in self.votes],
            "verdict": verdict,
            "calls": int(generated) + len(self.votes),
            "cut": bool(caption and caption.cut) or any(vote.cut for _, vote in self.votes),
            "error": error,
            "retryable": bool(caption and caption.retryable) or any(vote.retryable for _, vote in self.votes),
            "caption_key": caption.key if caption else None,
            "caption_cut": bool(caption and caption.cut),
            "caption_tokens": caption.tokens if caption else 0,
            "caption_truncated": caption.truncated if caption else None,
        }

    def signature(self, lineup: ResolvedLineup) -> str:
        """Return the signature of the finished row; a stored row with another one is outdated."""
        return signature(self.finished(lineup))


def signature(row: dict[str, Any]) -> str:
    """Return a hash of the answers, verdict and errors of a row of `captions`."""
    votes = [f"{vote['voter']} {vote['key']} {vote['answer']}" for vote in row["votes"] or []]
    values = (row["caption_key"], row["caption"], row["verdict"], row["error"], row["retryable"], row["calls"])
    return content_id(*map(repr, values), *votes)


def caption_rows(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Return rows of `captions` as a table."""
    return pa.Table.from_pylist(list(rows), schema=SCHEMAS["captions"])


def read_views(table: pa.Table) -> list[View]:
    """Return the rows of `views`, sorted so that views that share a caption are adjacent."""
    return sorted(map(view_of, table.to_pylist()), key=order_of)


def view_of(row: Mapping[str, Any]) -> View:
    """Return a row of `views` as a `View`."""
    return View(
        row["view_id"],
        row["image_id"],
        row["task"],
        Prompt(row["caption_prompt"], read_spans(row["caption_fields"])),
        Prompt(row["quality_prompt"], read_spans(row["quality_fields"])),
        row["given_caption"],
    )


def order_of(view: View) -> tuple[str, str, str]:
    """Return the sort key of `read_views`."""
    return view.image_id, view.caption_prompt.text, view.view_id
