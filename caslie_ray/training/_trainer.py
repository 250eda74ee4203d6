"""Ray Train: one elastic group of workers trains models one after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    WorkerGroupError,
)
from ray.train.torch import TorchTrainer

from caslie_ray.cluster.capacity import cluster_shortage
from caslie_ray.cluster.connection import connect
from caslie_ray.cluster.shortage import Need
from caslie_ray.errors import EngineError, RunError
from caslie_ray.profiles.training import TrainingSettings
from caslie_ray.storage.run import Run
from caslie_ray.training._errors import TrainingError
from caslie_ray.training._ray_checkpoints import checkpoints_folder, discard_if_broken
from caslie_ray.training._ray_worker import Assignment, Item, train_worker
from caslie_ray.training._spec import MODELS

__all__ = ["fit"]

_JOIN_S = 0.5
_TIMEOUT_S = 10.0
_GIB = 2.0**30


def fit(run: Run, items: Sequence[Item], actor: Any) -> None:
    """Train models with one group of workers: starting a group takes longer than training a small model.

    Args:
        run: where models are written.
        items: the models; they share base and settings.
        actor: the progress actor.

    Raises:
        TrainingError: the loss is not finite, workers kept failing, or the cluster is too small.
        EngineError: the base cannot be loaded.
        RunError: the store refuses.
    """
    settings = items[0].spec.settings
    need = settings.resources
    wanted = {"CPU": need.cpus, "GPU": need.gpus, "memory": need.memory_gib * _GIB}
    resources = {unit: amount for unit, amount in wanted.items() if amount}
    lowest, highest = settings.num_workers.min, settings.num_workers.max
    _refuse_what_cannot_fit(settings, resources)
    # Ray's types do not know the elastic pair.
    workers: Any = lowest if lowest == highest else (lowest, highest)
    # Ray's types are those of Train V1, which had no limit of preemptions.
    failures: Any = FailureConfig
    folder = checkpoints_folder(items[0].spec)
    discard_if_broken(run, folder)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"assignment": Assignment(run, tuple(items), actor)},
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=need.gpus > 0,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=folder.rpartition("/")[2],
            storage_path=run.path(MODELS),
            storage_filesystem=run.fs,
            failure_config=failures(
                max_failures=settings.max_failures,
                max_preemption_failures=-1 if settings.max_preemptions is None else settings.max_preemptions,
            ),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        _fit_in_thread(trainer.fit, actor)
    except WorkerGroupError as error:
        raise _worker_error(error) from error
    except TrainingFailedError as error:
        raise TrainingError(f"training cannot go on: {error}") from error


def _refuse_what_cannot_fit(settings: TrainingSettings, resources: dict[str, float]) -> None:
    """Refuse workers that can never run together; Ray Train would wait for them forever."""
    count = settings.num_workers.min
    shortage = cluster_shortage([Need(f"{count} training workers", resources, count)], connect())
    if shortage is not None:
        raise TrainingError(f"{shortage.reason}; lower training.num_workers or training.resources, or {shortage.mend}")


def _fit_in_thread(fit: Callable[[], Any], actor: Any) -> None:
    """Fit in a thread: in the main thread Ray Train would replace the handlers of interrupts.

    A final error ends the wait at once; workers that Ray Train restarts nevertheless stop with the same error.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            fit()
        except BaseException as error:  # raised below, in the waiting thread
            failed.append(error)

    thread = threading.Thread(target=run, name="fit", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_JOIN_S)
        final = _final_error(actor)
        if final is not None:
            raise final
    if failed:
        raise failed[0]


def _final_error(actor: Any) -> Exception | None:
    try:
        final: Exception | None = ray.get(actor.final_error.remote(), timeout=_TIMEOUT_S)
    except RayError:  # asked again
        return None
    return final


def _worker_error(error: WorkerGroupError) -> RuntimeError:
    """Return the first worker's error that is worded for users, else a description of the first error."""
    causes = [getattr(failure, "cause", failure) for failure in error.worker_failures.values()]
    worded = next((cause for cause in causes if isinstance(cause, (TrainingError, EngineError, RunError))), None)
    if worded is not None:
        return worded
    # When one worker ends, the others fail because they lost their connection to it: the first one has the reason.
    return TrainingError(f"a worker failed, and {len(causes)} times in all: {type(causes[0]).__name__}: {causes[0]}")
