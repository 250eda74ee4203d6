"""Reads a run partition by partition: its sums, and the views that a person should look at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.errors import RunError
from caslie_ray.evaluation import _measures as measures
from caslie_ray.evaluation._bounds import bounded, cut
from caslie_ray.evaluation._sums import Sums
from caslie_ray.evaluation._truth import KnownView
from caslie_ray.evaluation.page import ShownTruth, ShownView, ShownVote, worst_first
from caslie_ray.miniature.catalogue import Look
from caslie_ray.miniature.truth import ViewTruth, helps
from caslie_ray.quality import audited
from caslie_ray.storage.partitions import partition_of
from caslie_ray.storage.run import Run
from caslie_ray.tasks import TASKS

__all__ = ["Collected", "Judged", "collect", "images_of", "shown_view", "splits_of"]

_COLUMNS = ["view_id", "caption", "votes", "verdict", "error"]


@dataclass(frozen=True)
class Judged:
    """Against what a run is measured.

    Attributes:
        voters: the names of the lineup's voters.
        audit: the share of the views on which all were asked.
        sets: voters whose majority is measured.
        truth: the truth by view id; None where it is not known.
        splits: the splits of a view by its id, where the truth is known.
        free: the context-free caption of a view by its id; empty where there are none.
        shown: how many views to keep for the page.
    """

    voters: frozenset[str]
    audit: float
    sets: tuple[tuple[str, ...], ...]
    truth: Mapping[str, KnownView] | None
    splits: Mapping[str, tuple[str, ...]]
    free: Mapping[str, str]
    shown: int


@dataclass
class Collected:
    """What was found in partitions of a run: sums, and the worst views first; `views` counts those with a row,
    `waiting` those without."""

    sums: Sums
    worst: list[ShownView]
    views: int = 0
    waiting: int = 0

    def merge(self, other: Collected, shown: int) -> None:
        """Take in another partition."""
        self.sums.merge(other.sums)
        self.views += other.views
        self.waiting += other.waiting
        self.worst = worst_first([*self.worst, *other.worst])[:shown]


def collect(partition: str, run: Run, judged: Judged) -> Collected:
    """Read one partition of views and captions. Views without a row are only counted.

    Raises:
        RunError: the run was captioned with other voters, or by another schedule of votes.
    """
    rows = {row["view_id"]: row for row in run.read("captions", _COLUMNS, partition).to_pylist()}
    views = bounded(run.read("views", ["view_id", "image_id", "task", "caption_prompt"], partition)).to_pylist()
    found = Collected(Sums(), [])
    shown = []
    for view in views:
        row = rows.get(view["view_id"])
        if row is not None:
            _refuse_another_profile(run, row, judged)
            known = judged.truth.get(view["view_id"]) if judged.truth is not None else None
            _count(found.sums, view, row, known, judged)
            shown.append(shown_view(view, row, known))
    found.views, found.waiting = len(shown), len(views) - len(shown)
    found.worst = worst_first(shown)[: judged.shown]
    return found


def _refuse_another_profile(run: Run, row: Mapping[str, Any], judged: Judged) -> None:
    asked = {vote["voter"] for vote in row["votes"] or ()}
    mend = "name the profile, and its settings, that the run was captioned with; or caption it again"
    if strangers := asked - judged.voters:
        raise RunError(f"{run.label} holds votes of {', '.join(sorted(strangers))}, no voter of this profile: {mend}")
    if row["caption"] is not None and len(asked) < len(judged.voters) and audited(row["view_id"], judged.audit):
        missing = ", ".join(sorted(judged.voters - asked))
        raise RunError(
            f"{run.label}: {missing} did not vote on view {row['view_id']}, on which by this profile all vote: {mend}"
        )


def _count(
    sums: Sums, view: Mapping[str, Any], row: Mapping[str, Any], known: KnownView | None, judged: Judged
) -> None:
    image, votes = view["image_id"], row["votes"] or []
    sums.add("views", image)
    sums.add("views/used", image, bool(row["verdict"]))
    sums.add("views/failed", image, row["error"] is not None)
    # Early exit shows later voters the split views only: their rates would be of those.
    all_asked = bool(votes) and len(votes) == len(judged.voters) and audited(view["view_id"], judged.audit)
    if all_asked:
        measures.count_agreement(sums, image, votes)
    if known is None:
        return
    truth = known.truth
    sums.add("known", image)
    sums.add("known/held out", image, known.held_out)
    sums.add(f"known/{truth.usefulness}", image)
    sums.add(f"known/kind/{truth.picture.kind}", image)
    groups = [TASKS[view["task"]].code, *judged.splits.get(view["view_id"], ())]
    if row["caption"] is None:
        # A failure names nothing of what it was asked for; of no use as it is, it leads nobody astray either.
        if truth.picture.shown is not None:
            measures.count_caption(sums, image, truth, "", groups)
        return
    measures.count_caption(sums, image, truth, row["caption"], groups)
    measures.count_verdict(sums, image, truth, row, groups, judged.sets if all_asked else ())
    free = judged.free.get(view["view_id"])
    if free is not None:
        measures.count_context_free(sums, image, truth, row["caption"], free)


def shown_view(
    view: Mapping[str, Any], row: Mapping[str, Any], known: KnownView | None, splits: tuple[str, ...] = ()
) -> ShownView:
    """Return a view as the page shows it, its texts cut to `LONGEST`; `row` is that of `captions`."""
    return ShownView(
        view_id=view["view_id"],
        image_id=view["image_id"],
        task=TASKS[view["task"]].code,
        splits=splits,
        context=cut(view["caption_prompt"]) or "",
        caption=cut(row["caption"]),
        votes=tuple(
            ShownVote(vote["voter"], vote["answer"], vote["p_yes"], cut(vote["error"])) for vote in row["votes"] or ()
        ),
        verdict=bool(row["verdict"]),
        error=cut(row["error"]),
        truth=_shown_truth(known.truth, row["caption"]) if known else None,
    )


def _shown_truth(truth: ViewTruth, caption: str | None) -> ShownTruth:
    shown = truth.picture.shown
    return ShownTruth(
        usefulness=truth.usefulness,
        kind=truth.picture.kind,
        product=_phrase(truth.picture.product),
        shown=_phrase(shown) if shown else None,
        asks=truth.asks,
        lacks=truth.lacks,
        helps=caption is not None and helps(caption, truth),
    )


def _phrase(look: Look) -> str:
    by = f"by {look.brand}" if look.brand else "without a brand mark"
    return f"{look.size} {look.colour} {look.pattern} {look.category} {by}"


def splits_of(run: Run, view_ids: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the splits in which some views occur, each in the order of its first sample."""
    wanted = set(view_ids)
    found: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for path in run.files("samples"):
        table = run.read_file(path, ["split", "view_ids"])
        for split, ids in zip(table["split"].to_pylist(), table["view_ids"].to_pylist(), strict=True):
            for view_id in wanted.intersection(ids or ()):
                found[view_id][split] = None
    return {view_id: tuple(splits) for view_id, splits in found.items()}


def images_of(run: Run, image_ids: Iterable[str]) -> dict[str, bytes]:
    """Return the stored bytes of some images."""
    wanted: defaultdict[str, set[str]] = defaultdict(set)
    files = run.by_partition("images")
    digits = max((len(name) for name in files if name != "all"), default=0)
    for image_id in image_ids:
        wanted[partition_of(image_id, digits)].add(image_id)
    found: dict[str, bytes] = {}
    for partition, ids in wanted.items():
        among: Sequence[str] = sorted(ids)
        for path in files.get(partition, []):
            table = run.read_file(path, ["image_id", "image"], pc.field("image_id").isin(pa.array(among)))
            found |= dict(zip(table["image_id"].to_pylist(), table["image"].to_pylist(), strict=True))
    return found
