"""The truth of a drawn data set, by view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow.fs as pafs

from caslie_ray.errors import RunError
from caslie_ray.miniature.catalogue import Look
from caslie_ray.miniature.drawing import Picture
from caslie_ray.miniature.truth import ViewTruth
from caslie_ray.profiles import Profile
from caslie_ray.storage.filesystems import open_path
from caslie_ray.storage.run import Run

__all__ = ["KnownView", "read_truth"]


@dataclass(frozen=True, slots=True)
class KnownView:
    """A view whose truth is known.

    Attributes:
        truth: what its picture is of, what its context asks for, and what its text lacks.
        held_out: no checkpoint was trained on what its picture shows.
    """

    truth: ViewTruth
    held_out: bool


def read_truth(run: Run, profile: Profile) -> dict[str, KnownView] | None:
    """Read the truth of a run's views by view id; None where the run brings none and the profile names none.

    Several samples may hold one view and ask for different things: the history that tells what an SR sample is
    about stands in no prompt. Such a view asks for, and lacks, what any of them does.

    Raises:
        RunError: the truth that the profile names is not there, or is of another data set than the run.
    """
    named = profile.evaluation.truth
    if named is not None:
        filesystem, root = open_path(named)
        place = Run(filesystem, root.rstrip("/"), named)
    else:
        place = run.below("source/truth")
    views, images = place.path("views.parquet"), place.path("images.parquet")
    if any(info.type != pafs.FileType.File for info in place.info([views, images])):
        if named is None:
            return None
        raise RunError(f"{place.label} holds no truth: views.parquet and images.parquet are wanted (evaluation.truth)")
    pictures = {row["image"]: row for row in place.read_file(images).to_pylist()}
    samples = run.read("samples", ["sample_id", "view_ids"])
    view_ids = dict(zip(samples["sample_id"].to_pylist(), samples["view_ids"].to_pylist(), strict=True))
    found: dict[str, KnownView] = {}
    for row in place.read_file(views).to_pylist():
        ids = view_ids.get(row["sample_id"])
        view_id = ids[row["position"]] if ids and row["position"] < len(ids) else None
        if view_id is not None:
            known = _known(row, pictures[row["image"]])
            found[view_id] = _together(found[view_id], known) if view_id in found else known
    if view_ids and not found:
        raise RunError(f"{place.label} is the truth of another data set: it knows no sample of {run.label}")
    return found


def _together(one: KnownView, other: KnownView) -> KnownView:
    asks = tuple(dict.fromkeys((*one.truth.asks, *other.truth.asks)))
    lacks = tuple(dict.fromkeys((*one.truth.lacks, *other.truth.lacks)))
    return replace(one, truth=replace(one.truth, asks=asks, lacks=lacks))


def _known(view: Mapping[str, Any], picture: Mapping[str, Any]) -> KnownView:
    shown = Look(**picture["shown"]) if picture["shown"] else None
    truth = ViewTruth(
        Picture(picture["kind"], Look(**picture["product"]), shown, seed=0),
        tuple(view["asks"]),
        tuple(view["lacks"]),
        manner="",
    )
    return KnownView(truth, picture["held_out"])
