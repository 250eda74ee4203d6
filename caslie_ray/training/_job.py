"""The train job: each model that the profile asks for, by Ray Train, from where the run stands."""

from __future__ import annotations

import logging
import time
from typing import Any

from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from caslie_ray.cluster import connect
from caslie_ray.profiles import Profile
from caslie_ray.runs import Run, RunError
from caslie_ray.training._examples import Examples, read_examples
from caslie_ray.training._order import TrainingOrder, orders_of
from caslie_ray.training._worker import Assignment, work

__all__ = ["train"]

log = logging.getLogger(__name__)


def train(run: Run, profile: Profile, *, quiet: bool = False) -> dict[str, Any]:
    """Fine-tune the models that a profile asks for; return the job's summary.

    A model that is finished is left as it is; one that was begun goes on from its last checkpoint.

    Raises:
        RunError: there are no instructions to learn from, or the store refuses.
        EngineError: the base cannot be loaded.
        TrainingError: the loss is no number, or workers kept failing.
    """
    begun = time.monotonic()
    models = [_train(run, order, quiet=quiet) for order in orders_of(profile)]
    summary = {
        "job": "train",
        "run": run.label,
        "profile": profile.name,
        "models": models,
        "seconds": round(time.monotonic() - begun, 2),
    }
    run.write_json("summary/train.json", summary)
    return summary


def _train(run: Run, order: TrainingOrder, *, quiet: bool) -> dict[str, Any]:
    examples = read_examples(run, order.table, order.variant, "train", order.tasks)
    if not len(examples):
        raise RunError(
            f"{run.label} has no instructions of the variant {order.variant} in the split train"
            f"{' for ' + ', '.join(order.tasks) if order.tasks else ''}: run fuse, or add samples to that split"
        )
    folder = order.folder(examples.digest)
    record = run.read_json(f"{folder}/training.json")
    fresh = record is None
    seconds = 0.0
    if fresh:
        begun = time.monotonic()
        _fit(run, order, folder, examples)
        seconds = time.monotonic() - begun
        record = run.read_json(f"{folder}/training.json")
    return {
        "model": order.name,
        "folder": run.below(folder).label,
        "examples": len(examples),
        "trained_now": fresh,
        "steps": record["steps"],
        "loss": record["curve"][-1]["loss"],
        "best": record["best"],
        "seconds": round(seconds, 2),
    }


def _fit(run: Run, order: TrainingOrder, folder: str, examples: Examples) -> None:
    settings = order.settings
    connect()
    need = settings.resources
    resources = {"CPU": need.cpus, **({"GPU": need.gpus} if need.gpus else {})}
    lowest, highest = settings.num_workers.min, settings.num_workers.max
    # Ray's types know of no elastic pair.
    workers: Any = lowest if lowest == highest else (lowest, highest)
    trainer = TorchTrainer(
        work,
        train_loop_config={"assignment": Assignment(run, order, folder, examples.digest)},
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=need.gpus > 0,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            # With a name of its own a run that was begun is found again.
            name="checkpoints",
            storage_path=run.path(folder),
            storage_filesystem=run.fs,
            failure_config=FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    trainer.fit()
