"""What is counted of each view: what its caption names, who voted how, and whether that was right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from caslie_ray.evaluation._sums import Sums
from caslie_ray.miniature.catalogue import VALUES
from caslie_ray.miniature.truth import ViewTruth, helps, named_in
from caslie_ray.quality import count

__all__ = ["VERDICT", "asked_in", "count_agreement", "count_caption", "count_context_free", "count_verdict", "name_of"]

VERDICT = "verdict"
"""The name under which the verdict in the table is counted, beside voters and sets of voters."""


def name_of(voters: Sequence[str]) -> str:
    """The name under which the majority of some voters is counted."""
    return "majority of " + ", ".join(voters)


def asked_in(view: ViewTruth) -> tuple[str, ...]:
    """The attributes that a view's context asks for and a drawing can show."""
    return tuple(name for name in view.asks if name in VALUES)


def count_agreement(sums: Sums, image_id: str, votes: Sequence[Mapping[str, Any]]) -> None:
    """Count on what pairs of voters agree. All the voters must have been asked."""
    answers = {vote["voter"]: vote["answer"] for vote in votes if vote["answer"] is not None}
    sums.add("all asked", image_id)
    for name, answer in answers.items():
        sums.add(f"voter/{name}/votes", image_id)
        sums.add(f"voter/{name}/yes", image_id, answer == "yes")
    for one, other in combinations(sorted(answers), 2):
        pair = f"pair/{one}/{other}"
        sums.add(f"{pair}/views", image_id)
        sums.add(f"{pair}/differ", image_id, answers[one] != answers[other])
        sums.add(f"{pair}/yes of first", image_id, answers[one] == "yes")
        sums.add(f"{pair}/yes of second", image_id, answers[other] == "yes")
    if len(answers) == len(votes):
        yes = sum(answer == "yes" for answer in answers.values())
        no = len(answers) - yes
        sums.add("all voted", image_id)
        sums.add("all voted/unanimous", image_id, 0 in (yes, no))
        sums.add("all voted/yes", image_id, yes)
        sums.add("all voted/votes", image_id, yes + no)
        sums.add("all voted/agreeing pairs", image_id, yes * (yes - 1) + no * (no - 1))
        sums.add("all voted/pairs", image_id, (yes + no) * (yes + no - 1))


def count_caption(sums: Sums, image_id: str, view: ViewTruth, caption: str, groups: Sequence[str]) -> None:
    """Count what a caption names, against what the picture shows.

    Args:
        groups: names of the groups that the view belongs to besides its picture's kind, such as its task.
    """
    named, shown = named_in(caption), view.picture.shown
    kind = view.picture.kind
    sums.add(f"caption/{kind}/views", image_id)
    sums.add(f"caption/{kind}/words", image_id, len(caption.split()))
    sums.add(f"caption/{kind}/described as a product", image_id, "category" in named)
    if shown is None:
        sums.add(f"caption/{kind}/names an attribute", image_id, bool(named))
        sums.add("error/attribute hallucination", image_id, bool(named))
        return
    asked = asked_in(view)
    for name in VALUES:
        right = named.get(name, "") == shown.value(name)
        if name in named:
            sums.add(f"caption/{kind}/{name}/named", image_id)
            sums.add(f"caption/{kind}/{name}/named rightly", image_id, right)
        if name in asked:
            sums.add(f"caption/{kind}/{name}/asked", image_id)
            sums.add(f"caption/{kind}/{name}/asked and right", image_id, right)
    if asked:
        right = all(named.get(name, "") == shown.value(name) for name in asked)
        for group in (kind, *(f"{kind}/{group}" for group in groups)):
            sums.add(f"caption/{group}/asked", image_id)
            sums.add(f"caption/{group}/asked and right", image_id, right)
    wrong = any(value != shown.value(name) for name, value in named.items())
    sums.add("error/attribute hallucination", image_id, wrong)
    missing = kind == "informative" and any(name not in named and shown.value(name) for name in asked)
    sums.add("error/attribute missing", image_id, missing)


def count_verdict(
    sums: Sums,
    image_id: str,
    view: ViewTruth,
    row: Mapping[str, Any],
    groups: Sequence[str],
    sets: Sequence[Sequence[str]],
) -> None:
    """Count who judged a caption rightly: the verdict, and where all voted each voter and set of voters.

    Args:
        row: of the table `captions`, with a caption.
        groups: see `count_caption`.
        sets: voters whose majorities are counted; none where not all were asked.
    """
    helpful = helps(row["caption"], view)
    verdict = bool(row["verdict"])
    for group in ("", *(f"/{group}" for group in groups)):
        _count_judge(sums, image_id, f"{VERDICT}{group}", verdict, helpful)
    sums.add("views with a caption", image_id)
    sums.add("views with a caption/helps", image_id, helpful)
    sums.add("error/helpful caption missing", image_id, helpful and not verdict)
    sums.add("error/unhelpful caption used", image_id, verdict and not helpful)
    if not sets:
        return
    answers = {vote["voter"]: vote["answer"] for vote in row["votes"] or ()}
    for name, answer in answers.items():
        if answer is not None:
            _count_judge(sums, image_id, f"voter/{name}", answer == "yes", helpful)
    for names in sets:
        tally = count([answers.get(name) for name in names], len(names))
        _count_judge(sums, image_id, name_of(names), tally.verdict, helpful)
    _count_judge(sums, image_id, "use it always", True, helpful)


def count_context_free(sums: Sums, image_id: str, view: ViewTruth, conditioned: str, free: str) -> None:
    """Count, for an informative picture, whether a caption written with and one without the context name what the
    context asks for."""
    asked, shown = asked_in(view), view.picture.shown
    if view.picture.kind != "informative" or shown is None or not asked:
        return
    sums.add("context/views", image_id)
    for name, caption in (("conditioned", conditioned), ("free", free)):
        named = named_in(caption)
        sums.add(f"context/{name}/right", image_id, all(named.get(each, "") == shown.value(each) for each in asked))
        sums.add(f"context/{name}/words", image_id, len(caption.split()))


def _count_judge(sums: Sums, image_id: str, judge: str, says_yes: bool, helpful: bool) -> None:
    answer, truth = "yes" if says_yes else "no", "helps" if helpful else "does not"
    sums.add(f"{judge}/views", image_id)
    sums.add(f"{judge}/{truth}", image_id)
    sums.add(f"{judge}/{truth}/{answer}", image_id)
