"""The train job: each model that the profile asks for, by Ray Train, from where the run stands."""

from __future__ import annotations

import functools
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.fs as pafs
import ray
from ray.exceptions import RayTaskError
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    WorkerGroupError,
)
from ray.train.torch import TorchTrainer

from caslie_ray.cluster import connect
from caslie_ray.engines import EngineError
from caslie_ray.profiles import Profile
from caslie_ray.runs import Run, RunError
from caslie_ray.training._board import Onlooker
from caslie_ray.training._examples import Examples, read_examples
from caslie_ray.training._export import merge_adapter
from caslie_ray.training._learner import TrainingError
from caslie_ray.training._memory import estimate
from caslie_ray.training._order import MODELS, TrainingOrder, orders_of
from caslie_ray.training._worker import Assignment, Item, work

__all__ = ["TrainedModel", "plan_training", "train", "trained"]

log = logging.getLogger(__name__)

_LOOK_S = 0.5

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


def trained(run: Run, order: TrainingOrder) -> TrainedModel | None:
    """Return the model of an order; None where it is not finished.

    Raises:
        RunError: there are no instructions to learn from.
    """
    folder = order.folder(_examples(run, order).digest)
    record = run.read_json(f"{folder}/training.json")
    if record is None:
        return None
    kept = kept_adapter(order, record)
    place = run.below(f"{folder}/{kept}")
    where = place.root if isinstance(run.fs, pafs.LocalFileSystem) else place.uri
    return TrainedModel(where, record["adapters"][kept], record)


def kept_adapter(order: TrainingOrder, record: Mapping[str, Any]) -> str:
    """Return which of a model's adapters answers: `best`, or `last` where nothing was validated."""
    return order.settings.keep if order.settings.keep in record["adapters"] else "last"


def train(run: Run, profile: Profile, *, quiet: bool = False) -> dict[str, Any]:
    """Fine-tune the models that a profile asks for; return the job's summary.

    A model that is finished is left as it is; one that was begun goes on from its last checkpoint.

    Args:
        run: holds `instructions`.
        profile: the base, the models and the hyperparameters.
        quiet: no progress lines.

    Raises:
        RunError: there are no instructions to learn from, or the store refuses.
        EngineError: the base cannot be loaded.
        TrainingError: the loss is no number, or workers kept failing.
    """
    begun = time.monotonic()
    orders = orders_of(profile)
    sizes = {order.name: _examples(run, order) for order in orders}
    to_do = [order for order in orders if not _finished(run, order, sizes[order.name])]
    took: dict[str, float] = {}
    if to_do:
        connect()
        steps = sum(order.settings.total_steps(len(sizes[order.name])) for order in to_do)
        with Onlooker(steps, quiet=quiet) as onlooker:
            took = _train(run, [(order, sizes[order.name]) for order in to_do], onlooker.board)
    models = [_describe(run, order, sizes[order.name], took.get(order.name)) for order in orders]
    summary = {
        "job": "train",
        "run": run.label,
        "profile": profile.name,
        "models": models,
        "seconds": round(time.monotonic() - begun, 2),
    }
    run.write_json("summary/train.json", summary)
    return summary


def plan_training(run: Run, profile: Profile) -> list[str]:
    """Return what a training would do, as lines; no weights are loaded.

    Raises:
        RunError: there are no instructions to learn from.
        EngineError: the base cannot be found.
    """
    lines: list[str] = []
    for order in orders_of(profile):
        examples = _examples(run, order)
        folder = order.folder(examples.digest)
        steps = order.settings.total_steps(len(examples))
        need = estimate(order.spec, order.settings)
        finished = run.read_json(f"{folder}/training.json") is not None
        lines += [
            f"{order.name:<9} {len(examples):,} instructions, {steps:,} steps of {order.settings.global_batch}"
            f" on {order.spec.checkpoint}{', finished' if finished else ''}",
            f"          a worker takes {need.total:.2f} GiB: weights {need.weights:.2f}, adapter and optimiser"
            f" {need.adapter:.2f}, activations {need.activations:.2f}",
            f"          {run.below(folder).label}",
        ]
    return lines


def _examples(run: Run, order: TrainingOrder) -> Examples:
    examples = read_examples(run, order.table, order.variant, "train", order.tasks)
    if examples.outside:
        log.warning(
            "%d samples are left out, for their answer is none of their options: %s%s", len(examples.outside),
            ", ".join(examples.outside[:3]), ", …" if len(examples.outside) > 3 else "",
        )  # fmt: skip
    if not len(examples):
        raise RunError(
            f"{run.label} has no instructions of the variant {order.variant} in the split train"
            f"{' for ' + ', '.join(order.tasks) if order.tasks else ''}: run fuse, or add samples to that split"
        )
    return examples


def _finished(run: Run, order: TrainingOrder, examples: Examples) -> bool:
    folder = order.folder(examples.digest)
    if run.read_json(f"{folder}/training.json") is None:
        return False
    return not order.settings.merge or bool(run.listed(run.path(folder, MERGED)))


def _train(run: Run, to_do: Sequence[tuple[TrainingOrder, Examples]], board: Any) -> dict[str, float]:
    """Train models; return the seconds that each took."""
    items = [Item(order, order.folder(examples.digest), examples.digest) for order, examples in to_do]
    unfinished = [item for item in items if run.read_json(f"{item.folder}/training.json") is None]
    if unfinished:
        _fit(run, unfinished, board)
    took: dict[str, float] = {}
    for item in items:
        record = run.read_json(f"{item.folder}/training.json")
        took[item.order.name] = record["seconds"]
        if item.order.settings.merge and not run.listed(run.path(item.folder, MERGED)):
            _merge(run, item.order, item.folder, kept_adapter(item.order, record))
    return took


def _describe(run: Run, order: TrainingOrder, examples: Examples, seconds: float | None) -> dict[str, Any]:
    folder = order.folder(examples.digest)
    record = run.read_json(f"{folder}/training.json")
    return {
        "model": order.name,
        "folder": run.below(folder).label,
        "examples": len(examples),
        "left_out": len(examples.outside),
        "trained_now": seconds is not None,
        "steps": record["steps"],
        "loss": record["curve"][-1]["loss"],
        "best": record["best"],
        "seconds": round(seconds or 0.0, 2),
    }


def _merge(run: Run, order: TrainingOrder, folder: str, kept: str) -> None:
    need = order.settings.resources
    task = ray.remote(num_cpus=need.cpus, max_retries=3)(_write_merged)
    try:
        ray.get(task.remote(run, order, folder, kept))
    except RayTaskError as error:
        raise error.cause from error


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
            run.patiently("write", target, functools.partial(_copy, run, file, target))


def _copy(run: Run, file: Path, target: str) -> None:
    run.fs.create_dir(target.rpartition("/")[0], recursive=True)
    pafs.copy_files(str(file), target, source_filesystem=pafs.LocalFileSystem(), destination_filesystem=run.fs)


def _fit(run: Run, items: Sequence[Item], board: Any) -> None:
    """Train models one after the other, by one group of workers: to start one takes longer than a small model."""
    settings = items[0].order.settings
    need = settings.resources
    resources = {"CPU": need.cpus, **({"GPU": need.gpus} if need.gpus else {})}
    lowest, highest = settings.num_workers.min, settings.num_workers.max
    # Ray's types know of no elastic pair.
    workers: Any = lowest if lowest == highest else (lowest, highest)
    # Found again by base and settings: whatever models were asked for before, the one that was begun goes on.
    name = f"checkpoints-{items[0].order.key('')[:12]}"
    trainer = TorchTrainer(
        work,
        train_loop_config={"assignment": Assignment(run, tuple(items), board)},
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=need.gpus > 0,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=name,
            storage_path=run.path(MODELS),
            storage_filesystem=run.fs,
            failure_config=FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        _aside(trainer.fit)
    except WorkerGroupError as error:
        raise _plain(error) from error
    except TrainingFailedError as error:
        raise TrainingError(f"training cannot go on: {error}") from error
    run.delete_folder(run.path(MODELS, name))


def _aside(fit: Callable[[], Any]) -> None:
    """Fit in a thread of its own: in the main one Ray Train would take over what an interrupt does."""
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
    if failed:
        raise failed[0]


def _plain(error: WorkerGroupError) -> RuntimeError:
    """What one of the workers said, where it said it for a person to read."""
    causes = [getattr(failure, "cause", failure) for failure in error.worker_failures.values()]
    told = next((cause for cause in causes if isinstance(cause, (TrainingError, EngineError, RunError))), None)
    if told is not None:
        return told
    # When one worker ends, the others lose their connection to it and say so: the first one has the reason.
    return TrainingError(f"a worker failed, and {len(causes)} times in all: {type(causes[0]).__name__}: {causes[0]}")
