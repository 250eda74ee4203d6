"""Looks up views for the report page, with their captions, votes, splits and truth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.evaluation._partitions import Partition, is_large, map_chunks, partitions_of
from caslie_ray.evaluation.captions.truth_files import TruthFiles
from caslie_ray.evaluation.report.lookup import rows_of
from caslie_ray.evaluation.report.shown import ShownTruth, ShownView, ShownVote
from caslie_ray.evaluation.report.text_limits import truncate
from caslie_ray.storage.run import Run
from caslie_ray.tasks import SPLITS, short_name

__all__ = ["find_splits", "find_views", "shown_view"]


def find_views(
    run: Run,
    view_ids: Collection[str],
    truth: TruthFiles | None,
    splits: Mapping[str, tuple[str, ...]],
    among: Collection[str] | None = None,
) -> list[ShownView]:
    """Return the views that have a row in `captions`, sorted by id.

    Args:
        run: the run.
        view_ids: the views to return.
        truth: the known truth; None if there is none.
        splits: the splits of each view.
        among: partitions to read; all if None.

    Raises:
        RunError: a table cannot be read.
    """
    partitions = partitions_of(run, ["views"], ["captions"])
    large = is_large(run, partitions, "views")
    if among is not None:
        partitions = [partition for partition in partitions if partition.name in among]
    wanted = frozenset(view_ids)

    def read(chunk: Sequence[Partition]) -> list[ShownView]:
        return _read_views(run, chunk, wanted, truth, splits)

    found = [view for part in map_chunks(read, partitions, in_tasks=large) for view in part.result]
    return sorted(found, key=lambda view: view.view_id)


def _read_views(
    run: Run,
    chunk: Sequence[Partition],
    wanted: Collection[str],
    truth: TruthFiles | None,
    splits: Mapping[str, tuple[str, ...]],
) -> list[ShownView]:
    views = {
        row["view_id"]: row
        for row in rows_of(run, "views", chunk, wanted, ["view_id", "image_id", "task", "caption_prompt"])
    }
    if not views:
        return []
    shown: dict[str, ShownTruth] = {}
    captions = {row["view_id"]: row for row in rows_of(run, "captions", chunk, views, None)}
    if truth is not None:
        from caslie_ray.evaluation.captions.drawn_truth import read_truth, shown_truth  # imports the miniature world

        for view_id, known in read_truth(run, truth, views).items():
            if view_id in captions:
                shown[view_id] = shown_truth(known.truth, captions[view_id]["caption"])
    return [
        shown_view(view, captions[view_id], shown.get(view_id), splits.get(view_id, ()))
        for view_id, view in views.items()
        if view_id in captions
    ]


def shown_view(
    view: Mapping[str, Any], row: Mapping[str, Any], truth: ShownTruth | None, splits: tuple[str, ...] = ()
) -> ShownView:
    """Return a view with truncated texts; `row` is its row of `captions`."""
    return ShownView(
        view_id=view["view_id"],
        image_id=view["image_id"],
        task=short_name(view["task"]),
        splits=splits,
        context=truncate(view["caption_prompt"]) or "",
        caption=truncate(row["caption"]),
        votes=tuple(
            ShownVote(vote["voter"], vote["answer"], vote["p_yes"], truncate(vote["error"]))
            for vote in row["votes"] or ()
        ),
        verdict=bool(row["verdict"]),
        error=truncate(row["error"]),
        truth=truth,
    )


def find_splits(run: Run, view_ids: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the splits in which some views occur.

    Raises:
        RunError: a table cannot be read.
    """
    partitions = partitions_of(run, ["samples"])
    wanted = pa.array(sorted(view_ids), pa.string())

    def read(chunk: Sequence[Partition]) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for path in (path for partition in chunk for path in partition.files["samples"]):
            table = run.read_file(path, ["split", "view_ids"])
            for split in pc.unique(table["split"]).to_pylist():
                ids = pc.unique(pc.list_flatten(table.filter(pc.field("split") == split)["view_ids"]))
                found.update((view_id, split) for view_id in ids.filter(pc.is_in(ids, value_set=wanted)).to_pylist())
        return found

    splits: defaultdict[str, set[str]] = defaultdict(set)
    for part in map_chunks(read, partitions, in_tasks=is_large(run, partitions, "samples")):
        for view_id, split in part.result:
            splits[view_id].add(split)
    return {view_id: tuple(split for split in SPLITS if split in found) for view_id, found in splits.items()}
