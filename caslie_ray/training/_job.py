"""The train job: trains the models of a profile that are not finished, with Ray Train."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from caslie_ray.cluster.connection import connect
from caslie_ray.engines.preflight import preflight
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run
from caslie_ray.training._memory import cards, estimate
from caslie_ray.training._merging import merge, merged_digest
from caslie_ray.training._progress import TrainingMonitor
from caslie_ray.training._ray_checkpoints import checkpoints_folder, delete_checkpoints
from caslie_ray.training._ray_worker import Item
from caslie_ray.training._registry import PlannedModel, finished_model, kept_adapter, planned_models
from caslie_ray.training._spec import base_of
from caslie_ray.training._trainer import fit

__all__ = ["plan_training", "train"]

log = logging.getLogger(__name__)


def train(run: Run, profile: Profile, *, quiet: bool = False) -> dict[str, Any]:
    """Fine-tune the models of a profile; return the job's summary.

    Finished models are kept; a model that was started resumes from its last checkpoint.

    Args:
        run: contains `instructions`.
        profile: the base, the models and the hyperparameters.
        quiet: no progress lines.

    Raises:
        RunError: there are no instructions to learn from, or the store refuses.
        EngineError: the base cannot be loaded, or the engine that it names cannot apply its adapters.
        TrainingError: the loss is not finite, workers kept failing, or the cluster is too small.
    """
    started = time.monotonic()
    models = planned_models(run, profile)
    to_do = [model for model in models if not _done(run, model)]
    if to_do:
        _preflight(to_do)
        base = base_of(profile)  # fails before an adapter is trained that no engine could apply
        log.info("%s will answer on %s", base.name, base.engine)
        connect()
        steps = sum(model.spec.settings.total_steps(model.examples.total) for model in to_do)
        with TrainingMonitor(steps, quiet=quiet) as monitor:
            _train(run, to_do, monitor.actor)
    if models:
        delete_checkpoints(run, checkpoints_folder(models[0].spec))
    trained_now = {model.spec.name for model in to_do}
    summary = {
        "job": "train",
        "run": run.label,
        "profile": profile.name,
        "models": [_describe(run, model, trained_now=model.spec.name in trained_now) for model in models],
        "seconds": round(time.monotonic() - started, 2),
    }
    run.write_json("summary/train.json", summary)
    return summary


def plan_training(run: Run, profile: Profile) -> list[str]:
    """Return what a training would do, as lines; loads no weights.

    Raises:
        RunError: there are no instructions to learn from.
        EngineError: the base cannot be found, or the engine that it names cannot apply its adapters.
    """
    lines: list[str] = []
    models = planned_models(run, profile)
    _preflight(models)
    for model in models:
        spec, count = model.spec, model.examples.total
        base_spec, settings = spec.base_spec, spec.settings
        steps = settings.total_steps(count)
        need = estimate(base_spec, settings)
        lines += [
            f"{spec.name:<9} {count:,} instructions, {steps:,} steps of {settings.global_batch}"
            f" on {base_spec.checkpoint}{', finished' if finished_model(run, model) else ''}",
            f"          a worker takes {need.total:.2f} GiB: weights {need.weights:.2f}, adapter and optimizer"
            f" {need.adapter:.2f}, activations {need.activations:.2f}",
            *(
                [f"          fits GPUs of {cards(spec.base_spec, spec.settings)}"]
                if spec.settings.resources.gpus
                else []
            ),
            f"          {run.below(model.folder).label}",
        ]
    base = base_of(profile)
    return [*lines, f"          {base.name} answers on {base.engine}"] if lines else []


def _preflight(models: Sequence[PlannedModel]) -> None:
    """Raise if the base, which all models share, can never be loaded."""
    for spec in {model.spec.base_spec.checkpoint: model.spec.base_spec for model in models}.values():
        preflight(spec)


def _done(run: Run, model: PlannedModel) -> bool:
    found = finished_model(run, model)
    return found is not None and (not model.spec.settings.merge or merged_digest(run, model.folder) == found.digest)


def _train(run: Run, to_do: Sequence[PlannedModel], actor: Any) -> None:
    unfinished = [model for model in to_do if finished_model(run, model) is None]
    if unfinished:
        fit(run, [Item(model.spec, model.folder, model.examples.digest) for model in unfinished], actor)
    for model in to_do:
        found = finished_model(run, model)
        assert found is not None, f"{model.folder} has no record after its training"
        if model.spec.settings.merge and merged_digest(run, model.folder) != found.digest:
            merge(run, model.spec, model.folder, kept_adapter(model.spec, found.record), found.digest)


def _describe(run: Run, model: PlannedModel, *, trained_now: bool) -> dict[str, Any]:
    record = model.record(run)
    assert record is not None
    losses = (
        ("cut", "lost words of a field"), ("captions_cut", "lost words of captions"), ("too_long", "were left out")
    )  # fmt: skip
    for name, what in losses:
        if record.get(name, 0):  # older records lack some counts
            log.warning("%s: %d samples are longer than the context and %s", model.spec.name, record[name], what)
    return {
        "model": model.spec.name,
        "folder": run.below(model.folder).label,
        "examples": model.examples.total,
        "left_out": model.examples.outside,
        "cut": record["cut"],
        "captions_cut": record.get("captions_cut", 0),
        "too_long": record["too_long"],
        "trained_now": trained_now,
        "steps": record["steps"],
        "loss": record["curve"][-1]["loss"],
        "best": record["best"],
        "seconds": record["seconds"] if trained_now else 0.0,
    }
