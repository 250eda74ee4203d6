"""Counts captions, votes and verdicts per partition, and picks the views that the report page may show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

from caslie_ray.errors import RunError
from caslie_ray.evaluation._partitions import Partition, is_large, map_chunks, partitions_of
from caslie_ray.evaluation.captions.sums import Sums
from caslie_ray.evaluation.captions.truth_files import TruthFiles
from caslie_ray.evaluation.report.ranking import RankedView, rank, worst_of
from caslie_ray.evaluation.report.shown import ShownVote
from caslie_ray.monitoring.progress import Progress
from caslie_ray.quality import audited
from caslie_ray.storage.run import Run

if TYPE_CHECKING:
    from caslie_ray.evaluation.captions.drawn_truth import KnownView

__all__ = ["CaptionCounts", "CountOptions", "count_agreement", "count_captions"]


@dataclass(frozen=True)
class CountOptions:
    """What a run is counted by.

    Attributes:
        voters: names of the lineup's voters; empty if the profile has no vote.
        audit: share of views on which all voters are asked.
        voter_sets: voters whose majority is measured.
        truth: the known truth; None if there is none.
        context_free: the run with captions without context; None if they are not compared.
        page_views: number of views to pick for the page.
    """

    voters: frozenset[str]
    audit: float
    voter_sets: tuple[tuple[str, ...], ...]
    truth: TruthFiles | None
    context_free: Run | None
    page_views: int


@dataclass
class CaptionCounts:
    """Counts of some partitions. Its size does not grow with the views.

    Attributes:
        sums: sums per bucket of images.
        worst: the views that are most worth a look.
        views: views with a row in `captions`.
        without_row: views without one.
        context_free: captions without context.
    """

    sums: Sums = field(default_factory=Sums)
    worst: list[RankedView] = field(default_factory=list)
    views: int = 0
    without_row: int = 0
    context_free: int = 0

    def merge(self, other: CaptionCounts, page_views: int) -> None:
        """Add the counts of other partitions."""
        self.sums.merge(other.sums)
        self.worst = worst_of([*self.worst, *other.worst], page_views)
        self.views += other.views
        self.without_row += other.without_row
        self.context_free += other.context_free


def count_captions(run: Run, options: CountOptions, *, quiet: bool = False) -> CaptionCounts:
    """Count a run's captions; a large run is counted in Ray tasks.

    Raises:
        RunError: a table cannot be read, or the run was captioned with other voters or another schedule of votes.
    """
    partitions = partitions_of(run, ["views"], ["captions"])
    found = CaptionCounts()

    def count(chunk: Sequence[Partition]) -> CaptionCounts:
        return count_chunk(run, chunk, options)

    with Progress("evaluate", len(partitions), "partitions", quiet=quiet) as progress:
        for part in map_chunks(count, partitions, in_tasks=is_large(run, partitions, "views")):
            found.merge(part.result, options.page_views)
            progress.add(part.partitions)
    return found


def count_chunk(run: Run, chunk: Sequence[Partition], options: CountOptions) -> CaptionCounts:
    """Count some partitions; the truth is read once for all of them.

    Raises:
        RunError: see `count_captions`.
    """
    found = CaptionCounts()
    known: Mapping[str, KnownView] = {}
    if options.truth is not None:
        from caslie_ray.evaluation.captions.drawn_truth import read_truth  # imports the miniature world

        ids = {
            name for one in chunk for name in one.of(run).read("views", ["view_id"], one.name)["view_id"].to_pylist()
        }
        known = read_truth(run, options.truth, ids)
    for partition in chunk:
        found.merge(_count_partition(run, partition, options, known), options.page_views)
    return found


def _count_partition(
    run: Run, partition: Partition, options: CountOptions, known: Mapping[str, KnownView]
) -> CaptionCounts:
    here = partition.of(run)
    columns = ["view_id", "caption", "votes", "verdict", "error"]
    rows = {row["view_id"]: row for row in here.read("captions", columns, partition.name).to_pylist()}
    views = here.read("views", ["view_id", "image_id", "task"], partition.name).to_pylist()
    free = _context_free(options.context_free, partition.name)
    found = CaptionCounts(context_free=len(free))
    for view in views:
        row = rows.get(view["view_id"])
        if row is None:
            found.without_row += 1
            continue
        _refuse_other_profile(run, row, options)
        helps = _count_view(found.sums, view, row, known.get(view["view_id"]), free.get(view["view_id"]), options)
        votes = [ShownVote(vote["voter"], vote["answer"], vote["p_yes"], None) for vote in row["votes"] or ()]
        place = rank(votes, bool(row["verdict"]), row["error"], helps)
        found.worst.append(RankedView(place, view["view_id"], partition.name))
        found.views += 1
    found.worst = worst_of(found.worst, options.page_views)
    return found


def _context_free(run: Run | None, partition: str) -> dict[str, str]:
    if run is None:
        return {}
    rows = run.read("captions", ["view_id", "caption"], partition)
    found = zip(rows["view_id"].to_pylist(), rows["caption"].to_pylist(), strict=True)
    return {view_id: caption for view_id, caption in found if caption is not None}


def _refuse_other_profile(run: Run, row: Mapping[str, Any], options: CountOptions) -> None:
    asked = {vote["voter"] for vote in row["votes"] or ()}
    mend = "name the profile, and its settings, that the run was captioned with; or caption it again"
    if strangers := asked - options.voters:
        raise RunError(f"{run.label} has votes of {', '.join(sorted(strangers))}, no voter of this profile: {mend}")
    if row["caption"] is not None and len(asked) < len(options.voters) and audited(row["view_id"], options.audit):
        missing = ", ".join(sorted(options.voters - asked))
        raise RunError(
            f"{run.label}: {missing} did not vote on view {row['view_id']}, on which all vote by this profile: {mend}"
        )


def _count_view(
    sums: Sums,
    view: Mapping[str, Any],
    row: Mapping[str, Any],
    known: KnownView | None,
    free: str | None,
    options: CountOptions,
) -> bool | None:
    """Count one view; return whether its caption helps, or None if the truth is not known."""
    image, votes = view["image_id"], row["votes"] or []
    sums.add("views", image)
    sums.add("views/used", image, bool(row["verdict"]))
    sums.add("views/failed", image, row["error"] is not None)
    # With early exit, later voters see contested views only; rates per voter come from audited views.
    all_asked = bool(votes) and len(votes) == len(options.voters) and audited(view["view_id"], options.audit)
    if all_asked:
        count_agreement(sums, image, votes)
    if known is None:
        return None
    from caslie_ray.evaluation.captions.drawn_truth import helps  # as in count_chunk
    from caslie_ray.evaluation.captions.truth_counts import count_known

    count_known(sums, view, row, known, options.voter_sets if all_asked else (), free)
    return row["caption"] is not None and helps(row["caption"], known.truth)


def count_agreement(sums: Sums, image_id: str, votes: Sequence[Mapping[str, Any]]) -> None:
    """Count the agreement per pair of voters on a view on which all voters were asked."""
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
