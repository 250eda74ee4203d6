"""The stages that a view passes: the captioner (EC³), then the voters one after the other (CQE).

Both schedules use these functions. They ask a model only for what the ledger does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from caslie_ray.captioning._rows import CaptionAnswer, Row, View, VoteAnswer
from caslie_ray.engines import Choice, Generation, Request
from caslie_ray.hashing import content_id
from caslie_ray.prompts import CAPTION, Prompt
from caslie_ray.quality import CHOICES, count
from caslie_ray.roles import ResolvedLineup, Role

__all__ = ["CONTEXT_FREE", "Ask", "Known", "advance", "caption_key", "vote_key"]

CONTEXT_FREE = Prompt("Please generate an informative caption for the product in the image.")
"""The caption prompt without its context (paper C.1)."""


class Ask(Protocol):
    """Asks the models."""

    def generate(self, role: Role, requests: Sequence[Request]) -> list[Generation]:
        """Return one caption a request, in order."""
        ...

    def choose(self, role: Role, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        """Return one choice a request, in order."""
        ...


@dataclass
class Known:
    """Answers that the run holds already, by their keys; `fresh` are those that models gave since."""

    captions: dict[str, CaptionAnswer] = field(default_factory=dict)
    votes: dict[str, VoteAnswer] = field(default_factory=dict)
    fresh: list[CaptionAnswer | VoteAnswer] = field(default_factory=list)

    def add(self, answer: CaptionAnswer | VoteAnswer) -> None:
        """Take what a model said."""
        if isinstance(answer, CaptionAnswer):
            self.captions[answer.key] = answer
        else:
            self.votes[answer.key] = answer
        self.fresh.append(answer)


def caption_key(view: View, lineup: ResolvedLineup) -> str:
    """Return the key of a view's caption: its image, the prompt, and the captioner's fingerprint."""
    assert lineup.captioner is not None
    return content_id(view.image_id, _caption_prompt(view, lineup).text, lineup.captioner.fingerprint)


def vote_key(view: View, caption: str, voter: Role) -> str:
    """Return the key of a vote: the caption, the quality prompt, and the voter's fingerprint."""
    return content_id(caption, view.quality_prompt.text, voter.fingerprint)


def _caption_prompt(view: View, lineup: ResolvedLineup) -> Prompt:
    prompt = CONTEXT_FREE if lineup.context_free else view.caption_prompt
    if lineup.caption_words is None:
        return prompt
    # Behind the last field, so the spans stay as they are.
    return replace(prompt, text=f"{prompt.text} Use no more than {lineup.caption_words} words.")


def advance(
    views: Sequence[View],
    lineup: ResolvedLineup,
    known: Known,
    *,
    ask: Ask | None = None,
    allowed: Collection[str] | None = None,
    images: Callable[[Collection[str]], Mapping[str, bytes]] | None = None,
) -> list[Row]:
    """Take views as far as the known answers and the models reach.

    Args:
        views: the views.
        lineup: who is asked, and by which rules.
        known: what is known; new answers are added to it.
        ask: asks the models; None asks nobody.
        allowed: names of the models that may be asked; None for all.
        images: returns the encoded images of some image ids.

    Returns:
        One row a view, in order. Where an answer is missing that may not be asked for, the row says
        which model it waits for.
    """

    def may_ask(role: Role) -> bool:
        return ask is not None and (allowed is None or role.name in allowed)

    rows = [Row(view) for view in views]
    if lineup.rule == "never":
        return rows
    if lineup.captioner is None:
        for row in rows:
            row.caption = _given(row.view)
    else:
        if ask is not None and may_ask(lineup.captioner):
            _write_captions(rows, lineup, lineup.captioner, known, ask, images)
        for row in rows:
            row.caption = known.captions.get(caption_key(row.view, lineup))
            if row.caption is None:
                row.waits_for = lineup.captioner.name
    for voter in lineup.voters:
        open_rows = [row for row in rows if _is_open(row, lineup)]
        if ask is not None and may_ask(voter):
            _take_votes(open_rows, voter, known, ask)
        for row in open_rows:
            vote = known.votes.get(vote_key(row.view, _text(row), voter))
            if vote is None:
                row.waits_for = voter.name
            else:
                row.votes.append((voter.name, vote))
    return rows


def _is_open(row: Row, lineup: ResolvedLineup) -> bool:
    """Whether the next voter is to be asked about a row."""
    if row.waits_for or row.caption is None or row.caption.text is None:
        return False
    if lineup.asks_all(row.view.view_id):
        return True
    return not count([vote.answer for _, vote in row.votes], len(lineup.voters)).decided


def _text(row: Row) -> str:
    assert row.caption is not None
    return row.caption.text or ""


def _given(view: View) -> CaptionAnswer:
    text = (view.given_caption or "").strip()
    key = content_id("given", view.view_id, text)
    if not text:
        return CaptionAnswer(key, None, error="no caption came with the data: fill caption_info, or generate captions")
    return CaptionAnswer(key, text)


def _write_captions(
    rows: Sequence[Row],
    lineup: ResolvedLineup,
    captioner: Role,
    known: Known,
    ask: Ask,
    images: Callable[[Collection[str]], Mapping[str, bytes]] | None,
) -> None:
    missing: dict[str, View] = {}
    for row in rows:
        key = caption_key(row.view, lineup)
        if key not in known.captions:
            missing.setdefault(key, row.view)
    if not missing:
        return
    pictures = images({view.image_id for view in missing.values()}) if images else {}
    requests: list[Request] = []
    for key, view in missing.items():
        if view.image_id not in pictures:
            reason = f"image {view.image_id} is not in the run's images table; run ingest again"
            known.add(CaptionAnswer(key, None, error=reason, retryable=True))
            continue
        requests.append(Request(key, _caption_prompt(view, lineup), pictures[view.image_id]))
    for answer in ask.generate(captioner, requests) if requests else []:
        known.add(_caption_answer(answer, captioner))


def _caption_answer(answer: Generation, captioner: Role) -> CaptionAnswer:
    tokens = answer.prompt_tokens + answer.new_tokens
    if answer.failure is not None:
        reason = f"{captioner.name}: {answer.failure.reason}"
        return CaptionAnswer(answer.key, None, tokens, answer.cut, reason, answer.failure.retryable)
    # Prompts are written line by line: a line break in a caption would end its line.
    text = " ".join(answer.text.split())
    if not text:
        return CaptionAnswer(answer.key, None, tokens, answer.cut, f"{captioner.name} wrote an empty caption")
    return CaptionAnswer(answer.key, text, tokens, answer.cut, truncated=answer.truncated)


def _take_votes(rows: Sequence[Row], voter: Role, known: Known, ask: Ask) -> None:
    requests: dict[str, Request] = {}
    for row in rows:
        key = vote_key(row.view, _text(row), voter)
        if key not in known.votes and key not in requests:
            requests[key] = Request(key, row.view.quality_prompt.fill(CAPTION, _text(row)))
    if not requests:
        return
    for answer in ask.choose(voter, list(requests.values()), CHOICES):
        known.add(_vote_answer(answer))


def _vote_answer(answer: Choice) -> VoteAnswer:
    if answer.failure is not None:
        failure = answer.failure
        return VoteAnswer(answer.key, None, answer.prompt_tokens, answer.cut, failure.reason, failure.retryable)
    # Batches of other shapes move the last bits of a float; rows are to be equal in every schedule.
    return VoteAnswer(answer.key, round(answer.probabilities[0], 6), answer.prompt_tokens, answer.cut)
