"""The models that a profile trains on a run: their examples, folders, and whether they are finished."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow.fs as pafs

from caslie_ray.errors import RunError
from caslie_ray.hashing import content_id
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run
from caslie_ray.training._example_counts import ExampleCounts, count_examples
from caslie_ray.training._examples import Examples
from caslie_ray.training._spec import TrainingSpec, training_specs

__all__ = [
    "MERGED", "PlannedModel", "TrainedModel", "digest_of", "finished_model", "kept_adapter", "planned_models",
    "trained_model",
]  # fmt: skip

log = logging.getLogger(__name__)

MERGED = "merged"
"""The subfolder of a model that holds it merged into its base."""


class TrainedModel(NamedTuple):
    """A finished model.

    Attributes:
        adapter: where its adapter is: a folder, or a URI.
        digest: hash of the adapter's weights.
        record: the content of `training.json`.
    """

    adapter: str
    digest: str
    record: dict[str, Any]


class PlannedModel(NamedTuple):
    """A model that a profile trains.

    Attributes:
        spec: what is trained.
        examples: counts of its examples.
        folder: its folder in the run.
    """

    spec: TrainingSpec
    examples: ExampleCounts
    folder: str

    def record(self, run: Run) -> dict[str, Any] | None:
        """Return the content of `training.json`; None if the model is not trained."""
        found: dict[str, Any] | None = run.read_json(f"{self.folder}/training.json")
        return found


def digest_of(examples: Examples, held_back: Examples) -> str:
    """Return a hash of all samples that a model depends on; see `ExampleCounts.digest`."""
    return content_id(examples.digest, held_back.digest)


def planned_models(run: Run, profile: Profile) -> list[PlannedModel]:
    """Return the models that a profile trains, without task-specific ones that have no samples in the split train.

    Raises:
        RunError: there are no instructions to learn from.
        EngineError: the base cannot be found.
    """
    found = []
    specs = training_specs(profile)
    for spec, examples in zip(specs, count_examples(run, specs), strict=True):
        try:
            found.append(_planned(run, spec, examples))
        except RunError:
            if not spec.tasks or not run.files(spec.table):
                raise
            log.warning("%s is left out: the run has no samples of its task in the split train", spec.name)
    return found


def trained_model(run: Run, spec: TrainingSpec) -> TrainedModel | None:
    """Return a model; None if it is not finished.

    Raises:
        RunError: there are no instructions to learn from.
    """
    (examples,) = count_examples(run, [spec])
    return finished_model(run, _planned(run, spec, examples))


def finished_model(run: Run, model: PlannedModel) -> TrainedModel | None:
    """Return a planned model; None if it is not finished."""
    record = model.record(run)
    if record is None:
        return None
    kept = kept_adapter(model.spec, record)
    place = run.below(f"{model.folder}/{kept}")
    where = place.root if isinstance(run.fs, pafs.LocalFileSystem) else place.uri
    return TrainedModel(where, record["adapters"][kept], record)


def kept_adapter(spec: TrainingSpec, record: Mapping[str, Any]) -> str:
    """Return which of a model's adapters answers: `best`, or `last` if nothing was validated."""
    return spec.settings.keep if spec.settings.keep in record["adapters"] else "last"


def _planned(run: Run, spec: TrainingSpec, examples: ExampleCounts) -> PlannedModel:
    if examples.outside:
        log.warning(
            "%d samples are left out, for their answer is none of their options or labels: %s%s", examples.outside,
            ", ".join(examples.named), ", …" if examples.outside > len(examples.named) else "",
        )  # fmt: skip
    if not examples.total:
        raise RunError(
            f"{run.label} has no instructions of the variant {spec.variant} in the split train"
            f"{' for ' + ', '.join(spec.tasks) if spec.tasks else ''}: run fuse, or add samples to that split"
        )
    return PlannedModel(spec, examples, spec.folder(examples.digest))
