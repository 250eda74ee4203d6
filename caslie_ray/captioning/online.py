"""Captions and votes of single views, online: the same requests, keys and rules as the caption job (EC³ and CQE)."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping, Sequence
from dataclasses import replace
from typing import Protocol

from caslie_ray.captioning._known_answers import KnownAnswers
from caslie_ray.captioning._requests import (
    caption_answer,
    caption_key,
    caption_prompt,
    quality_request,
    vote_answer,
    vote_key,
)
from caslie_ray.captioning._rows import CaptionAnswer, Row, View, VoteAnswer
from caslie_ray.captioning._voting import advance
from caslie_ray.engines import Choice, Generation, Request
from caslie_ray.errors import ModelUnavailable
from caslie_ray.hashing import content_id
from caslie_ray.quality import CHOICES
from caslie_ray.roles import ResolvedLineup, Role
from caslie_ray.tasks import ViewPrompts

__all__ = ["Answers", "AsyncAsk", "answer_view", "make_view"]

Answers = MutableMapping[str, CaptionAnswer | VoteAnswer]
"""Answers by their keys in the ledger."""


class AsyncAsk(Protocol):
    """Asks a loaded model for one answer."""

    async def generate(self, role: Role, request: Request) -> Generation:
        """Return the generated text.

        Raises:
            ModelUnavailable: the model does not answer.
        """
        ...

    async def choose(self, role: Role, request: Request, choices: Sequence[str]) -> Choice:
        """Return the probability of each choice.

        Raises:
            ModelUnavailable: the model does not answer.
        """
        ...


def make_view(image_id: str, task: str, prompts: ViewPrompts, caption: str | None = None) -> View:
    """Return a view; its id is the one that `ingest` gives it.

    Args:
        image_id: of the stored image; empty if the view has no image.
        task: full name of the task.
        prompts: the prompts of the view.
        caption: a given caption, for a lineup without a captioner.
    """
    view_id = content_id(image_id, prompts.caption.text, prompts.quality.text)
    return View(view_id, image_id, task, prompts.caption, prompts.quality, caption)


async def answer_view(
    view: View, image: bytes | None, lineup: ResolvedLineup, ask: AsyncAsk, answers: Answers, *, together: bool
) -> Row:
    """Caption a view and vote on its caption; the verdict is that of the caption job.

    Args:
        view: the view.
        image: its encoded image; None with a lineup that has no captioner.
        lineup: the models and the voting rule.
        ask: asks the models.
        answers: known answers; new ones are added, except retryable failures.
        together: ask all voters at once instead of one after the other until the verdict is decided.

    Raises:
        ModelUnavailable: the captioner does not answer. A voter that does not is a failed vote.
    """
    if together:
        lineup = replace(lineup, full=True)
    known = KnownAnswers()
    while True:
        row = advance([view], lineup, known)[0]
        if row.waits_for is None:
            return row
        if lineup.captioner is not None and row.waits_for == lineup.captioner.name:
            known.add(await _caption(view, image, lineup, ask, answers))
            continue
        asked = lineup.voters if together else [voter for voter in lineup.voters if voter.name == row.waits_for]
        for vote in await asyncio.gather(*(_vote(view, row.caption_text, voter, ask, answers) for voter in asked)):
            known.add(vote)


async def _caption(
    view: View, image: bytes | None, lineup: ResolvedLineup, ask: AsyncAsk, answers: Answers
) -> CaptionAnswer:
    key, captioner = caption_key(view, lineup), lineup.captioner
    assert captioner is not None
    found = answers.get(key)
    if isinstance(found, CaptionAnswer):
        return found
    answer = caption_answer(await ask.generate(captioner, Request(key, caption_prompt(view, lineup), image)), captioner)
    if not answer.retryable:
        answers[key] = answer
    return answer


async def _vote(view: View, caption: str, voter: Role, ask: AsyncAsk, answers: Answers) -> VoteAnswer:
    key = vote_key(view, caption, voter)
    found = answers.get(key)
    if isinstance(found, VoteAnswer):
        return found
    try:
        answer = vote_answer(await ask.choose(voter, quality_request(key, view, caption), CHOICES))
    except ModelUnavailable as error:
        answer = VoteAnswer(key, None, error=str(error), retryable=True)
    if not answer.retryable:
        answers[key] = answer
    return answer
