"""Requests for captions and votes: their keys and prompts, and how a model's results become answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from caslie_ray.captioning._known_answers import KnownAnswers
from caslie_ray.captioning._rows import CaptionAnswer, Row, View, VoteAnswer
from caslie_ray.engines import Choice, Generation, Request
from caslie_ray.hashing import content_id
from caslie_ray.pipeline.work import Ask
from caslie_ray.prompts import CAPTION, Prompt
from caslie_ray.quality import CHOICES
from caslie_ray.roles import ResolvedLineup, Role

__all__ = [
    "CONTEXT_FREE", "caption_answer", "caption_key", "caption_prompt", "quality_request", "request_captions",
    "request_votes", "vote_answer", "vote_key",
]  # fmt: skip

CONTEXT_FREE = Prompt("Please generate an informative caption for the product in the image.")
"""The caption prompt without its context (paper C.1)."""


def caption_key(view: View, lineup: ResolvedLineup) -> str:
    """Return the key of a view's caption: its image, the prompt, and the captioner's fingerprint."""
    assert lineup.captioner is not None
    return content_id(view.image_id, caption_prompt(view, lineup).text, lineup.captioner.fingerprint)


def vote_key(view: View, caption: str, voter: Role) -> str:
    """Return the key of a vote: the caption, the quality prompt, and the voter's fingerprint."""
    return content_id(caption, view.quality_prompt.text, voter.fingerprint)


def caption_prompt(view: View, lineup: ResolvedLineup) -> Prompt:
    """Return the prompt of a view's caption, with the word limit if the lineup sets one."""
    prompt = CONTEXT_FREE if lineup.context_free else view.caption_prompt
    if lineup.caption_words is None:
        return prompt
    # Appended after the last field, so the spans remain valid.
    return replace(prompt, text=f"{prompt.text} Use no more than {lineup.caption_words} words.")


def request_captions(
    rows: Sequence[Row],
    lineup: ResolvedLineup,
    captioner: Role,
    known: KnownAnswers,
    ask: Ask,
    images: Callable[[Collection[str]], Mapping[str, bytes]] | None,
) -> None:
    """Request the captions that are not known, one per key; a missing image is a retryable failure."""
    missing: dict[str, View] = {}
    for row in rows:
        key = caption_key(row.view, lineup)
        if key not in known.captions:
            missing.setdefault(key, row.view)
    if not missing:
        return
    encoded = images({view.image_id for view in missing.values()}) if images else {}
    requests: list[Request] = []
    for key, view in missing.items():
        if view.image_id not in encoded:
            reason = f"image {view.image_id} is not in the run's images table; run ingest again"
            known.add(CaptionAnswer(key, None, error=reason, retryable=True))
            continue
        requests.append(Request(key, caption_prompt(view, lineup), encoded[view.image_id]))
    for answer in ask.generate(captioner, requests) if requests else []:
        known.add(caption_answer(answer, captioner))


def caption_answer(answer: Generation, captioner: Role) -> CaptionAnswer:
    """Return a generated text as a caption with its white space collapsed; an empty one is a failure."""
    tokens = answer.prompt_tokens + answer.new_tokens
    if answer.failure is not None:
        reason = f"{captioner.name}: {answer.failure.reason}"
        return CaptionAnswer(answer.key, None, tokens, answer.cut, reason, answer.failure.retryable)
    # Prompts are line-based: a line break in a caption would end its line.
    text = " ".join(answer.text.split())
    if not text:
        return CaptionAnswer(answer.key, None, tokens, answer.cut, f"{captioner.name} wrote an empty caption")
    return CaptionAnswer(answer.key, text, tokens, answer.cut, truncated=answer.truncated)


def request_votes(rows: Sequence[Row], voter: Role, known: KnownAnswers, ask: Ask) -> None:
    """Request a voter's votes that are not known, one per key."""
    requests: dict[str, Request] = {}
    for row in rows:
        key = vote_key(row.view, row.caption_text, voter)
        if key not in known.votes and key not in requests:
            requests[key] = quality_request(key, row.view, row.caption_text)
    if not requests:
        return
    for answer in ask.choose(voter, list(requests.values()), CHOICES):
        known.add(vote_answer(answer))


def quality_request(key: str, view: View, caption: str) -> Request:
    """Return the request for a vote on a caption."""
    return Request(key, view.quality_prompt.fill(CAPTION, caption))


def vote_answer(answer: Choice) -> VoteAnswer:
    """Return a choice as a vote."""
    if answer.failure is not None:
        failure = answer.failure
        return VoteAnswer(answer.key, None, answer.prompt_tokens, answer.cut, failure.reason, failure.retryable)
    # Batch shapes change the last bits of a float; rounding keeps rows equal across schedules.
    return VoteAnswer(answer.key, round(answer.probabilities[0], 6), answer.prompt_tokens, answer.cut)
