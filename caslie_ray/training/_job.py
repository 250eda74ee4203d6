"""The train job: each model that the profile asks for, by Ray Train, from where the run stands."""

from __future__ import annotations

import functools
import json
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import ray
from ray.exceptions import RayTaskError

from caslie_ray.cluster.connection import connect
from caslie_ray.engines.preflight import preflight
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run
from caslie_ray.training._board import Onlooker
from caslie_ray.training._export import merge_adapter
from caslie_ray.training._fitting import checkpoints_folder, fit, forget
from caslie_ray.training._memory import cards, estimate
from caslie_ray.training._models import MERGED, Planned, finished, kept_adapter, planned
from caslie_ray.training._order import TrainingOrder, base_of
from caslie_ray.training._worker import Item

__all__ = ["plan_training", "train"]

log = logging.getLogger(__name__)

_ABOUT = "adapter.json"
"""Which adapter was merged, beside the merged checkpoint and written after it."""


def train(run: Run, profile: Profile, *, quiet: bool = False) -> dict[str, Any]:
    """Fine-tune the models that a profile asks for; return the job's summary.

    A model that is finished is left as it is; one that was begun goes on from its last checkpoint.

    Args:
        run: holds `instructions`.
        profile: the base, the models and the hyperparameters.
        quiet: no progress lines.

    Raises:
        RunError: there are no instructions to learn from, or the store refuses.
        EngineError: the base cannot be loaded, or the engine that it names cannot apply its adapters.
        TrainingError: the loss is no number, workers kept failing, or the cluster is too small.
    """
    begun = time.monotonic()
    models = planned(run, profile)
    to_do = [model for model in models if not _done(run, model)]
    if to_do:
        _preflight(to_do)
        base = base_of(profile)  # fails before anything is trained that could not answer
        log.info("%s will answer on %s", base.name, base.engine)
        connect()
        steps = sum(model.order.settings.total_steps(len(model.examples)) for model in to_do)
        with Onlooker(steps, quiet=quiet) as onlooker:
            _train(run, to_do, onlooker.board)
    if models:
        forget(run, checkpoints_folder(models[0].order))
    now = {model.order.name for model in to_do}
    summary = {
        "job": "train",
        "run": run.label,
        "profile": profile.name,
        "models": [_describe(run, model, trained_now=model.order.name in now) for model in models],
        "seconds": round(time.monotonic() - begun, 2),
    }
    run.write_json("summary/train.json", summary)
    return summary


def plan_training(run: Run, profile: Profile) -> list[str]:
    """Return what a training would do, as lines; no weights are loaded.

    Raises:
        RunError: there are no instructions to learn from.
        EngineError: the base cannot be found, or the engine that it names cannot apply its adapters.
    """
    lines: list[str] = []
    models = planned(run, profile)
    _preflight(models)
    for model in models:
        order, examples = model.order, model.examples
        steps = order.settings.total_steps(len(examples))
        need = estimate(order.spec, order.settings)
        lines += [
            f"{order.name:<9} {len(examples):,} instructions, {steps:,} steps of {order.settings.global_batch}"
            f" on {order.spec.checkpoint}{', finished' if finished(run, model) else ''}",
            f"          a worker takes {need.total:.2f} GiB: weights {need.weights:.2f}, adapter and optimiser"
            f" {need.adapter:.2f}, activations {need.activations:.2f}",
            *([f"          fits GPUs of {cards(order.spec, order.settings)}"] if order.settings.resources.gpus else []),
            f"          {run.below(model.folder).label}",
        ]
    base = base_of(profile)
    return [*lines, f"          {base.name} answers on {base.engine}"] if lines else []


def _preflight(models: Sequence[Planned]) -> None:
    """End the job here if the base, which all models share, can never be loaded."""
    for spec in {model.order.spec.checkpoint: model.order.spec for model in models}.values():
        preflight(spec)


def _done(run: Run, model: Planned) -> bool:
    found = finished(run, model)
    return found is not None and (not model.order.settings.merge or _merged(run, model) == found.digest)


def _merged(run: Run, model: Planned) -> str | None:
    """The digest of the adapter that was merged into the base; None where none was, or not to its end."""
    about = run.read_json(f"{model.folder}/{MERGED}/{_ABOUT}")
    return None if about is None else str(about["adapter"])


def _train(run: Run, to_do: Sequence[Planned], board: Any) -> None:
    unfinished = [model for model in to_do if finished(run, model) is None]
    if unfinished:
        fit(run, [Item(model.order, model.folder, model.digest) for model in unfinished], board)
    for model in to_do:
        found = finished(run, model)
        assert found is not None, f"{model.folder} has no record after its training"
        if model.order.settings.merge and _merged(run, model) != found.digest:
            _merge(run, model.order, model.folder, kept_adapter(model.order, found.record), found.digest)


def _describe(run: Run, model: Planned, *, trained_now: bool) -> dict[str, Any]:
    record = model.record(run)
    assert record is not None
    losses = (
        ("cut", "lost words of a field"), ("captions_cut", "lost words of captions"), ("too_long", "were left out")
    )  # fmt: skip
    for name, what in losses:
        if record.get(name, 0):  # a model trained before captions could be cut has no count of them
            log.warning("%s: %d samples are longer than the context and %s", model.order.name, record[name], what)
    return {
        "model": model.order.name,
        "folder": run.below(model.folder).label,
        "examples": len(model.examples),
        "left_out": len(model.examples.outside),
        "cut": record["cut"],
        "captions_cut": record.get("captions_cut", 0),
        "too_long": record["too_long"],
        "trained_now": trained_now,
        "steps": record["steps"],
        "loss": record["curve"][-1]["loss"],
        "best": record["best"],
        "seconds": record["seconds"] if trained_now else 0.0,
    }


def _merge(run: Run, order: TrainingOrder, folder: str, kept: str, digest: str) -> None:
    need = order.settings.resources
    task = ray.remote(num_cpus=need.cpus, max_retries=3)(_write_merged)
    try:
        ray.get(task.remote(run, order, folder, kept))
    except RayTaskError as error:
        raise error.cause from error
    run.put(run.path(folder, MERGED, _ABOUT), json.dumps({"adapter": digest, "name": kept}).encode())


def _write_merged(run: Run, order: TrainingOrder, folder: str, kept: str) -> None:
    with tempfile.TemporaryDirectory() as here:
        adapter, merged = Path(here) / "adapter", Path(here) / MERGED
        adapter.mkdir()
        for info in run.listed(run.path(folder, kept)):
            (adapter / info.base_name).write_bytes(run.read_bytes(info.path))
        merge_adapter(order.spec, adapter, merged)
        # Its settings last: a folder without them is no checkpoint.
        for file in sorted(merged.iterdir(), key=lambda file: file.name == "config.json"):
            target = run.path(folder, MERGED, file.name)
            run.with_retries("write", target, functools.partial(_copy, run, file, target))


def _copy(run: Run, file: Path, target: str) -> None:
    run.check_lease()
    run.fs.create_dir(target.rpartition("/")[0], recursive=True)
    pafs.copy_files(str(file), target, source_filesystem=pafs.LocalFileSystem(), destination_filesystem=run.fs)
