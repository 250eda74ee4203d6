"""Finds the known truth of a run's data set, without reading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.compute as pc
import pyarrow.fs as pafs

from caslie_ray.errors import RunError
from caslie_ray.evaluation._partitions import Partition, is_large, map_chunks, partitions_of
from caslie_ray.profiles import Profile
from caslie_ray.storage.filesystems import open_path
from caslie_ray.storage.run import Run

__all__ = ["TruthFiles", "check_truth", "find_truth"]


@dataclass(frozen=True)
class TruthFiles:
    """The folder with the truth of a drawn data set: ``views.parquet`` and ``images.parquet``."""

    folder: Run

    @property
    def views(self) -> str:
        """One row per image of a sample: sample_id, position, image, asks, lacks."""
        return self.folder.path("views.parquet")

    @property
    def images(self) -> str:
        """One row per image: image, kind, product, shown, held_out."""
        return self.folder.path("images.parquet")


def find_truth(run: Run, profile: Profile) -> TruthFiles | None:
    """Return the truth that the profile names, or else the run's own; None if there is neither.

    Raises:
        RunError: there are no such files where the profile names them.
    """
    named = profile.evaluation.truth
    if named is not None:
        filesystem, root = open_path(named)
        folder = Run(filesystem, root.rstrip("/"), named)
    else:
        folder = run.below("source/truth")
    found = TruthFiles(folder)
    if all(info.type == pafs.FileType.File for info in folder.info([found.views, found.images])):
        return found
    if named is None:
        return None
    raise RunError(f"{folder.label} holds no truth: views.parquet and images.parquet are expected (evaluation.truth)")


def check_truth(run: Run, truth: TruthFiles) -> None:
    """Check that a run has samples of the data set whose truth this is.

    Raises:
        RunError: it has samples, but none of these.
    """

    def known(chunk: Sequence[Partition]) -> tuple[int, int]:
        ids = pc.unique(truth.folder.read_file(truth.views, ["sample_id"])["sample_id"])
        samples = matches = 0
        for partition in chunk:
            for path in partition.files["samples"]:
                column = run.read_file(path, ["sample_id"])["sample_id"]
                samples += len(column)
                matches += pc.sum(pc.is_in(column, value_set=ids.cast(column.type))).as_py() or 0
            if matches:
                break
        return samples, matches

    partitions = partitions_of(run, ["samples"])
    samples = 0
    for _, _, (read, matches) in map_chunks(known, partitions, in_tasks=is_large(run, partitions, "samples")):
        if matches:
            return
        samples += read
    if samples:
        raise RunError(f"{truth.folder.label} is the truth of another data set: it has no sample of {run.label}")
