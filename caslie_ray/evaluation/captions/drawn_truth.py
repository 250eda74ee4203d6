"""The truth of a drawn data set per view. The only module of this package that imports `caslie_ray.miniature`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.evaluation.captions.truth_files import TruthFiles
from caslie_ray.evaluation.report.shown import ShownTruth
from caslie_ray.miniature.catalogue import VALUES, Look
from caslie_ray.miniature.drawing import KINDS, Picture
from caslie_ray.miniature.truth import ViewTruth, helps, named_in
from caslie_ray.storage.run import Run
from caslie_ray.tasks import SPLITS

__all__ = [
    "ATTRIBUTES", "IMAGE_KINDS", "KnownView", "ViewTruth", "asked_in", "helps", "named_in", "read_truth", "shown_truth",
]  # fmt: skip

ATTRIBUTES = tuple(VALUES)
"""Attributes that an image can show."""

IMAGE_KINDS = KINDS
"""Kinds of images, such as `placeholder`."""


@dataclass(frozen=True, slots=True)
class KnownView:
    """A view whose truth is known.

    Attributes:
        truth: what its image shows, what its context asks for, and what its text lacks.
        held_out: whether no checkpoint was trained on what its image shows.
        splits: the splits of its samples.
    """

    truth: ViewTruth
    held_out: bool
    splits: tuple[str, ...]


def asked_in(view: ViewTruth) -> tuple[str, ...]:
    """Return the attributes that a view's context asks for and an image can show."""
    return tuple(name for name in view.asks if name in VALUES)


def read_truth(run: Run, truth: TruthFiles, view_ids: Collection[str]) -> dict[str, KnownView]:
    """Return the truth of some views by view id.

    A view of several samples may have been drawn with different questions (the history that an SR sample is about
    is in no prompt). It asks for, and lacks, the union of these.

    Reads all of `samples` and of the truth's files, and keeps the rows of the given views.

    Raises:
        RunError: a file cannot be read.
    """
    splits: defaultdict[str, set[str]] = defaultdict(set)
    views: dict[tuple[str, int], str] = {}
    for sample_id, position, view_id, split in _occurrences(run, view_ids):
        splits[view_id].add(split)
        views[sample_id, position] = view_id
    samples = pa.array(sorted({sample_id for sample_id, _ in views}), pa.string())
    rows = truth.folder.read_file(truth.views, where=pc.field("sample_id").isin(samples)).to_pylist()
    rows = [row for row in rows if (row["sample_id"], row["position"]) in views]
    names = pa.array(sorted({row["image"] for row in rows}), pa.string())
    images = truth.folder.read_file(truth.images, where=pc.field("image").isin(names)).to_pylist()
    by_name = {row["image"]: row for row in images}
    asks: defaultdict[str, dict[str, None]] = defaultdict(dict)
    lacks: defaultdict[str, dict[str, None]] = defaultdict(dict)
    image_of: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        view_id = views[row["sample_id"], row["position"]]
        asks[view_id].update(dict.fromkeys(row["asks"]))
        lacks[view_id].update(dict.fromkeys(row["lacks"]))
        image_of.setdefault(view_id, by_name[row["image"]])
    return {
        view_id: KnownView(
            ViewTruth(_picture(image), tuple(asks[view_id]), tuple(lacks[view_id]), manner=""),
            image["held_out"],
            tuple(split for split in SPLITS if split in splits[view_id]),
        )
        for view_id, image in image_of.items()
    }


def _occurrences(run: Run, view_ids: Collection[str]) -> Iterator[tuple[str, int, str, str]]:
    """Yield sample_id, position, view_id and split of each place where a sample has one of the views."""
    wanted = pa.array(sorted(view_ids), pa.string())
    for path in run.files("samples"):
        table = run.read_file(path, ["sample_id", "split", "view_ids"]).combine_chunks()
        lists = table["view_ids"]
        found, parents = pc.list_flatten(lists), pc.list_parent_indices(lists).to_numpy()
        positions = np.arange(len(parents)) - np.searchsorted(parents, parents)
        kept = pc.is_in(found, value_set=wanted).to_numpy(zero_copy_only=False).nonzero()[0]
        owners = table.take(parents[kept])
        yield from zip(
            owners["sample_id"].to_pylist(), positions[kept].tolist(), found.take(kept).to_pylist(),
            owners["split"].to_pylist(), strict=True,
        )  # fmt: skip


def _picture(image: Mapping[str, Any]) -> Picture:
    shown = Look(**image["shown"]) if image["shown"] else None
    return Picture(image["kind"], Look(**image["product"]), shown, seed=0)


def shown_truth(truth: ViewTruth, caption: str | None) -> ShownTruth:
    """Return the truth of a view as the report page shows it, with whether a caption helps."""
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
