"""The models that a profile asks a run for: what each learns from, where it lies, and whether it is finished."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow.fs as pafs

from caslie_ray.errors import RunError
from caslie_ray.hashing import content_id
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run
from caslie_ray.training._examples import Examples, read_examples, read_held_back
from caslie_ray.training._order import TrainingOrder, orders_of

__all__ = ["MERGED", "Planned", "TrainedModel", "digest_of", "finished", "kept_adapter", "planned", "trained"]

log = logging.getLogger(__name__)

MERGED = "merged"
"""The folder of a model that holds it merged into its base."""


class TrainedModel(NamedTuple):
    """A model that is finished.

    Attributes:
        adapter: where its adapter lies: a folder, or a URI.
        digest: of the adapter's weights.
        record: what `training.json` says of it.
    """

    adapter: str
    digest: str
    record: dict[str, Any]


class Planned(NamedTuple):
    """A model that is asked for.

    Attributes:
        order: what is trained.
        examples: what it learns from.
        digest: of all samples that it depends on.
        folder: of the model, in the run.
    """

    order: TrainingOrder
    examples: Examples
    digest: str
    folder: str

    def record(self, run: Run) -> dict[str, Any] | None:
        """Return what `training.json` says; None where the model is not trained."""
        found: dict[str, Any] | None = run.read_json(f"{self.folder}/training.json")
        return found


def digest_of(examples: Examples, held_back: Examples) -> str:
    """Return a hash of all samples that a model depends on: what it learns from, and what chooses its best adapter."""
    return content_id(examples.digest, held_back.digest)


def planned(run: Run, profile: Profile) -> list[Planned]:
    """Return the models that a profile asks for; none of a single task of which the run has no samples to learn from.

    Raises:
        RunError: there are no instructions to learn from.
        EngineError: the base cannot be found.
    """
    found = []
    for order in orders_of(profile):
        try:
            found.append(_planned(run, order))
        except RunError:
            if not order.tasks or not run.files(order.table):
                raise
            log.warning("%s is left out: the run has no samples of its task in the split train", order.name)
    return found


def trained(run: Run, order: TrainingOrder) -> TrainedModel | None:
    """Return the model of an order; None where it is not finished.

    Raises:
        RunError: there are no instructions to learn from.
    """
    return finished(run, _planned(run, order))


def finished(run: Run, model: Planned) -> TrainedModel | None:
    """Return a model that is asked for; None where it is not finished."""
    record = model.record(run)
    if record is None:
        return None
    kept = kept_adapter(model.order, record)
    place = run.below(f"{model.folder}/{kept}")
    where = place.root if isinstance(run.fs, pafs.LocalFileSystem) else place.uri
    return TrainedModel(where, record["adapters"][kept], record)


def kept_adapter(order: TrainingOrder, record: Mapping[str, Any]) -> str:
    """Return which of a model's adapters answers: `best`, or `last` where nothing was validated."""
    return order.settings.keep if order.settings.keep in record["adapters"] else "last"


def _planned(run: Run, order: TrainingOrder) -> Planned:
    examples = read_examples(run, order.table, order.variant, "train", order.tasks)
    if examples.outside:
        log.warning(
            "%d samples are left out, for their answer is none of their options or labels: %s%s", len(examples.outside),
            ", ".join(examples.outside[:3]), ", …" if len(examples.outside) > 3 else "",
        )  # fmt: skip
    if not len(examples):
        raise RunError(
            f"{run.label} has no instructions of the variant {order.variant} in the split train"
            f"{' for ' + ', '.join(order.tasks) if order.tasks else ''}: run fuse, or add samples to that split"
        )
    digest = digest_of(examples, read_held_back(run, order))
    return Planned(order, examples, digest, order.folder(digest))
