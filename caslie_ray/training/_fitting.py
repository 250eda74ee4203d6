"""Ray Train: one group of workers trains models one after the other, and begins anew where some are lost."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import ray
from pyarrow.fs import FileType
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
from caslie_ray.cluster.ray_internals import CHECKPOINT_SNAPSHOT
from caslie_ray.cluster.shortage import Need
from caslie_ray.errors import EngineError, RunError
from caslie_ray.profiles.training import TrainingSettings
from caslie_ray.storage.damaged_files import keep_folder
from caslie_ray.storage.run import Run
from caslie_ray.training._learner import TrainingError
from caslie_ray.training._order import MODELS, TrainingOrder
from caslie_ray.training._worker import Assignment, Item, work

__all__ = ["checkpoints_folder", "fit", "forget", "forget_if_broken"]

log = logging.getLogger(__name__)

_LOOK_S = 0.5
_ASK_S = 10.0
_GIB = 2.0**30


def checkpoints_folder(order: TrainingOrder) -> str:
    """Return the folder, in the run, of the checkpoints of models with this base and these settings.

    Whatever models were asked for before, the one that was begun goes on.
    """
    return f"{MODELS}/checkpoints-{order.key('')[:12]}"


def fit(run: Run, items: Sequence[Item], board: Any) -> None:
    """Train models one after the other, by one group of workers: to start one takes longer than a small model.

    Args:
        run: where they go.
        items: the models; they share base and settings.
        board: the actor that workers report to.

    Raises:
        TrainingError: the loss is no number, workers kept failing, or the cluster is too small.
        EngineError: the base cannot be loaded.
        RunError: the store refuses.
    """
    settings = items[0].order.settings
    need = settings.resources
    wanted = {"CPU": need.cpus, "GPU": need.gpus, "memory": need.memory_gib * _GIB}
    resources = {unit: amount for unit, amount in wanted.items() if amount}
    lowest, highest = settings.num_workers.min, settings.num_workers.max
    _refuse_what_cannot_fit(settings, resources)
    # Ray's types know of no elastic pair.
    workers: Any = lowest if lowest == highest else (lowest, highest)
    # Ray's types are those of Train V1, which had no budget for preemptions.
    failures: Any = FailureConfig
    folder = checkpoints_folder(items[0].order)
    forget_if_broken(run, folder)
    trainer = TorchTrainer(
        work,
        train_loop_config={"assignment": Assignment(run, tuple(items), board)},
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
        _aside(trainer.fit, board)
    except WorkerGroupError as error:
        raise _plain(error) from error
    except TrainingFailedError as error:
        raise TrainingError(f"training cannot go on: {error}") from error


def _refuse_what_cannot_fit(settings: TrainingSettings, resources: dict[str, float]) -> None:
    """Refuse workers that can never run together; Ray Train would wait for them."""
    count = settings.num_workers.min
    shortage = cluster_shortage([Need(f"{count} training workers", resources, count)], connect())
    if shortage is not None:
        raise TrainingError(f"{shortage.reason}; lower training.num_workers or training.resources, or {shortage.mend}")


def forget_if_broken(run: Run, folder: str) -> None:
    """Replace checkpoints that Ray Train would refuse: a writer died while it wrote or deleted them, or Ray is another.

    A copy stays in the run's folder `damaged`: training was paid for.

    Raises:
        RunError: the store refuses.
    """
    snapshot = run.path(folder, CHECKPOINT_SNAPSHOT)
    if run.info([snapshot])[0].type == FileType.NotFound:
        return
    text = run.read_bytes(snapshot)
    try:
        whole = _whole(run, folder, json.loads(text))
    except (ValueError, KeyError, TypeError):
        whole = False
    if whole:
        return
    kept = keep_folder(run, folder)
    log.warning(
        "the checkpoints in %s are damaged or of another version of Ray: the model begins anew; a copy is in %s",
        run.below(folder).label, kept,
    )  # fmt: skip
    forget(run, folder)


def _whole(run: Run, folder: str, snapshot: Any) -> bool:
    names = [result["checkpoint_dir_name"] for result in snapshot["checkpoint_results"]]
    found = run.info([run.path(folder, name, "state.json") for name in names]) if names else []
    return snapshot["ray_version"] == ray.__version__ and all(info.type == FileType.File for info in found)


def forget(run: Run, folder: str) -> None:
    """Delete checkpoints, first what says that they are there.

    Raises:
        RunError: the store refuses.
    """
    run.delete([run.path(folder, CHECKPOINT_SNAPSHOT)])
    run.delete_folder(run.path(folder))


def _aside(fit: Callable[[], Any], board: Any) -> None:
    """Fit in a thread of its own: in the main one Ray Train would take over what an interrupt does.

    What would fail again ends the wait at once; workers that Ray Train starts nevertheless end by the same error.
    """
    failed: list[BaseException] = []

    def run() -> None:
        try:
            fit()
        except BaseException as error:  # raised below, where somebody waits for it
            failed.append(error)

    thread = threading.Thread(target=run, name="fit", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_LOOK_S)
        final = _final_error(board)
        if final is not None:
            raise final
    if failed:
        raise failed[0]


def _final_error(board: Any) -> Exception | None:
    try:
        final: Exception | None = ray.get(board.final_error.remote(), timeout=_ASK_S)
    except RayError:  # no news
        return None
    return final


def _plain(error: WorkerGroupError) -> RuntimeError:
    """What one of the workers said, where it said it for a person to read."""
    causes = [getattr(failure, "cause", failure) for failure in error.worker_failures.values()]
    told = next((cause for cause in causes if isinstance(cause, (TrainingError, EngineError, RunError))), None)
    if told is not None:
        return told
    # When one worker ends, the others lose their connection to it and say so: the first one has the reason.
    return TrainingError(f"a worker failed, and {len(causes)} times in all: {type(causes[0]).__name__}: {causes[0]}")
