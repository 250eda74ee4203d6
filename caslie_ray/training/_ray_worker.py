"""The function that Ray Train runs on each worker."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray.train
import torch
from ray.train.torch import get_device

from caslie_ray.engines.trainable import attention_for, load_trainable, quantized_to_4bit
from caslie_ray.errors import EngineError
from caslie_ray.storage.run import Run
from caslie_ray.training._adapter import add_adapter
from caslie_ray.training._checkpoints import folder_of, load_checkpoint
from caslie_ray.training._drain_notice import DrainNotice
from caslie_ray.training._examples import read_examples, read_held_back
from caslie_ray.training._final_errors import final_error
from caslie_ray.training._memory import starting_tokens
from caslie_ray.training._optimizer_steps import Learner
from caslie_ray.training._registry import digest_of
from caslie_ray.training._spec import TrainingSpec
from caslie_ray.training._token_limit import TokenLimit
from caslie_ray.training._train_loop import TrainingLoop

__all__ = ["Assignment", "Item", "train_worker"]

# Pause after a failure to load the base that may pass; `max_failures` bounds the number of tries.
_LOAD_PAUSE_S = 15.0


class Item(NamedTuple):
    """One model to train.

    Attributes:
        spec: what is trained.
        folder: the model's folder, in the run.
        digest: hash of the examples that the job counted, validation samples included; a worker that reads others
            refuses to start.
    """

    spec: TrainingSpec
    folder: str
    digest: str


@dataclass(frozen=True)
class Assignment:
    """The work of a group of workers.

    Attributes:
        run: contains the instructions; models are written to it.
        items: the models, one after the other; they share base and settings.
        actor: the progress actor.
    """

    run: Run
    items: tuple[Item, ...]
    actor: Any


def train_worker(config: Mapping[str, Any]) -> None:
    """Train what is not finished, from the last checkpoint on; runs on every worker at once.

    Non-retryable errors go to the progress actor, so that the driver and any restarted workers stop.

    Args:
        config: the `Assignment`, by the name `assignment`; Ray Train only passes mappings.

    Raises:
        TrainingError: the loss is not finite, a checkpoint is of another base, or memory does not suffice.
        EngineError: the base cannot be loaded.
    """
    assignment: Assignment = config["assignment"]
    actor = assignment.actor
    final = ray.get(actor.final_error.remote())
    if final is not None:
        raise final
    try:
        _train_all(assignment)
    except Exception as error:
        final = final_error(error)
        if final is None:
            if isinstance(error, EngineError):  # the hub, or this node: Ray Train restarts the workers at once
                time.sleep(_LOAD_PAUSE_S)
            raise
        ray.get(actor.fail.remote(final))
        raise final from error


def _train_all(assignment: Assignment) -> None:
    run = assignment.run
    # The same on all workers: a record is written once, after the last step that all of them made together.
    to_do = [item for item in assignment.items if run.read_json(f"{item.folder}/training.json") is None]
    # Asked once: later it differs between the worker that reports checkpoints and the others.
    checkpoint = ray.train.get_checkpoint()
    resumed = None if checkpoint is None else _folder_of(checkpoint)
    device = get_device()
    notice = DrainNotice()
    # One limit for all models: they share base and settings.
    limit = _starting_limit(to_do[0].spec, device, assignment.actor) if to_do else None
    # The model that was started goes first, before checkpoints of others replace its own.
    for item in sorted(to_do, key=lambda item: item.folder != resumed):
        _train(run, item, assignment.actor, device, notice, checkpoint if item.folder == resumed else None, limit)


def _folder_of(checkpoint: ray.train.Checkpoint) -> str:
    with checkpoint.as_directory() as folder:
        return folder_of(Path(folder))


def _train(
    run: Run,
    item: Item,
    actor: Any,
    device: torch.device,
    notice: DrainNotice,
    checkpoint: ray.train.Checkpoint | None,
    limit: TokenLimit | None,
) -> None:
    spec = item.spec
    settings = spec.settings
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    examples = read_examples(run, spec.table, spec.variant, "train", spec.tasks)
    held_back = read_held_back(run, spec)
    if digest_of(examples, held_back) != item.digest:
        raise RuntimeError(f"the instructions of {run.label} have changed since the job started: run it again")
    # A sharded base goes to the device layer by layer: the whole may be too large for it.
    trainable = load_trainable(
        spec.base_spec, torch.device("cpu") if settings.shard else device,
        attention=attention_for(spec.base_spec, device, packing=settings.packing),
        **(quantized_to_4bit() if settings.quantize == "4bit" else {}),
    )  # fmt: skip
    model = _with_adapter(trainable.model, spec)
    learner = Learner(model, trainable.turns, examples, settings, rank, world, device, limit)
    loop = TrainingLoop(run, item.spec, item.folder, item.digest, actor, learner, trainable.turns, held_back)
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            loop.resume(load_checkpoint(model, learner.optimizer, Path(folder), spec.base))
    while not loop.is_finished:
        loop.after(learner.step(loop.step, notice=notice.is_given()))
    loop.finish()


def _starting_limit(spec: TrainingSpec, device: torch.device, actor: Any) -> TokenLimit:
    """Check before loading that this GPU holds the base; return the token limit per micro-batch to start with.

    Raises:
        EngineError: not even one sample fits.
    """
    configured = spec.settings.micro_tokens
    limit = TokenLimit(configured, lambda text: actor.warn.remote(text))
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device).total_memory / 2**30
        limit.tokens = starting_tokens(spec.base_spec, spec.settings, card)
        if limit.tokens < configured:
            actor.warn.remote(
                f"by estimate a micro-batch of training.micro_tokens={configured} does not fit this GPU of {card:.1f}"
                f" GiB: a worker starts with {limit.tokens:,}; the result is the same"
            )
    return limit


def _with_adapter(model: Any, spec: TrainingSpec) -> Any:
    if spec.settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return add_adapter(model, spec.settings.lora, spec.settings.seed)
