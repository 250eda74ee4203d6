"""Counts of captions and verdicts against the truth of a drawn data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from caslie_ray.evaluation.captions.drawn_truth import ATTRIBUTES, KnownView, ViewTruth, asked_in, helps, named_in
from caslie_ray.evaluation.captions.sums import Sums
from caslie_ray.quality import count
from caslie_ray.tasks import short_name

__all__ = ["VERDICT", "count_caption", "count_context_free", "count_known", "count_verdict", "name_of"]

VERDICT = "verdict"
"""Name prefix of the sums of the run's verdict; voters and sets of voters have prefixes of their own."""


def name_of(voters: Sequence[str]) -> str:
    """Return the name prefix of the sums of a set of voters' majority."""
    return "majority of " + ", ".join(voters)


def count_known(
    sums: Sums,
    view: Mapping[str, Any],
    row: Mapping[str, Any],
    known: KnownView,
    voter_sets: Sequence[Sequence[str]],
    free: str | None,
) -> None:
    """Count one view whose truth is known.

    Args:
        sums: what is added to.
        view: image_id and task.
        row: its row of `captions`.
        known: its truth.
        voter_sets: voters whose majorities are counted; empty unless all voters were asked.
        free: its caption without context; None if there is none.
    """
    image, truth = view["image_id"], known.truth
    sums.add("known", image)
    sums.add("known/held out", image, known.held_out)
    sums.add(f"known/{truth.usefulness}", image)
    sums.add(f"known/kind/{truth.picture.kind}", image)
    groups = [short_name(view["task"]), *known.splits]
    if row["caption"] is None:
        # A missing caption names none of the asked attributes, but it is not misleading either.
        if truth.picture.shown is not None:
            count_caption(sums, image, truth, "", groups)
        return
    count_caption(sums, image, truth, row["caption"], groups)
    count_verdict(sums, image, truth, row, groups, voter_sets)
    if free is not None:
        count_context_free(sums, image, truth, row["caption"], free)


def count_caption(sums: Sums, image_id: str, view: ViewTruth, caption: str, groups: Sequence[str]) -> None:
    """Count which attributes a caption names, and whether its image shows them.

    Args:
        sums: what is added to.
        image_id: the view's image.
        view: its truth.
        caption: its caption.
        groups: groups of the view in addition to its image's kind, such as its task.
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
    for name in ATTRIBUTES:
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
    """Count the judgements of a caption: the verdict's, and if all voters were asked each voter's and set's.

    Args:
        sums: what is added to.
        image_id: the view's image.
        view: its truth.
        row: its row of `captions`, with a caption.
        groups: see `count_caption`.
        sets: voters whose majorities are counted; empty unless all voters were asked.
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
    """Count, for an informative image, whether the captions with and without context name the asked attributes."""
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
