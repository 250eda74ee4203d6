"""Captioning and voting per view: the caption (EC³), then one voter after the other until the verdict is decided (CQE).

Both schedules use `advance`. Models are asked only for answers that the ledger does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from caslie_ray.captioning._known_answers import KnownAnswers
from caslie_ray.captioning._requests import caption_key, request_captions, request_votes, vote_key
from caslie_ray.captioning._rows import CaptionAnswer, Row, View
from caslie_ray.hashing import content_id
from caslie_ray.pipeline.work import Ask
from caslie_ray.quality import count
from caslie_ray.roles import ResolvedLineup, Role

__all__ = ["advance"]


def advance(
    views: Sequence[View],
    lineup: ResolvedLineup,
    known: KnownAnswers,
    *,
    ask: Ask | None = None,
    allowed: Collection[str] | None = None,
    images: Callable[[Collection[str]], Mapping[str, bytes]] | None = None,
) -> list[Row]:
    """Advance each view through captioner and voters as far as known answers and allowed models permit.

    Args:
        views: the views.
        lineup: the models and the voting rule.
        known: known answers; new ones are added.
        ask: asks the models; None: no model is asked.
        allowed: names of the models that may be asked; None for all.
        images: returns encoded images by image id, for the ids that it is given.

    Returns:
        One row per view, in order. `waits_for` names the model whose missing answer may not be requested.
    """

    def may_ask(role: Role) -> bool:
        return ask is not None and (allowed is None or role.name in allowed)

    rows = [Row(view) for view in views]
    if lineup.rule == "never":
        return rows
    if lineup.captioner is None:
        for row in rows:
            row.caption = _given_caption(row.view)
    else:
        if ask is not None and may_ask(lineup.captioner):
            request_captions(rows, lineup, lineup.captioner, known, ask, images)
        for row in rows:
            row.caption = known.captions.get(caption_key(row.view, lineup))
            if row.caption is None:
                row.waits_for = lineup.captioner.name
    for voter in lineup.voters:
        open_rows = [row for row in rows if _is_open(row, lineup)]
        if ask is not None and may_ask(voter):
            request_votes(open_rows, voter, known, ask)
        for row in open_rows:
            vote = known.votes.get(vote_key(row.view, row.caption_text, voter))
            if vote is None:
                row.waits_for = voter.name
            else:
                row.votes.append((voter.name, vote))
    return rows


def _is_open(row: Row, lineup: ResolvedLineup) -> bool:
    """Return whether the next voter has to be asked about a row."""
    if row.waits_for or row.caption is None or row.caption.text is None:
        return False
    if lineup.asks_all(row.view.view_id):
        return True
    return not count([vote.answer for _, vote in row.votes], len(lineup.voters)).decided


def _given_caption(view: View) -> CaptionAnswer:
    text = (view.given_caption or "").strip()
    key = content_id("given", view.view_id, text)
    if not text:
        return CaptionAnswer(key, None, error="no caption came with the data: fill caption_info, or generate captions")
    return CaptionAnswer(key, text)
