"""One worker of Ray Train: it makes the steps that are left, and reports checkpoints."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import ray
import ray.train
import torch
from ray.train.torch import get_device
from transformers import BitsAndBytesConfig

from caslie_ray.cluster.ray_internals import draining_nodes
from caslie_ray.engines.load_errors import classify
from caslie_ray.engines.trainable import Turns, attention_for, is_out_of_memory, load_trainable
from caslie_ray.errors import EngineError, RunLost
from caslie_ray.hashing import content_id
from caslie_ray.profiles import TrainingSettings
from caslie_ray.storage.run import Run
from caslie_ray.tasks import UnknownTask
from caslie_ray.training._adapter import add_adapter
from caslie_ray.training._examples import Examples, read_examples, read_held_back
from caslie_ray.training._learner import Learner, Step, TrainingError
from caslie_ray.training._limit import TokenLimit
from caslie_ray.training._memory import starting_tokens
from caslie_ray.training._models import digest_of
from caslie_ray.training._order import TrainingOrder
from caslie_ray.training._saving import folder_of, load_checkpoint, save_adapter, save_checkpoint
from caslie_ray.training._tracking import Tracking
from caslie_ray.training._validation import mean_primary

__all__ = ["Assignment", "better", "others_hold_memory", "work"]

_DRAIN_EVERY_S = 2.0
# Between a failure to load the base that may pass, and the next try: `max_failures` bounds how often.
_LOAD_PAUSE_S = 15.0
# GPU memory that is in use and not in PyTorch's cache: this process' CUDA context and libraries, and the driver.
_CONTEXT_BYTES = 2 * 2**30


class Item(NamedTuple):
    """One model to train.

    Attributes:
        order: what is trained.
        folder: of the model, in the run.
        digest: of the examples that the job saw, held-back ones too; workers that see others refuse to begin.
    """

    order: TrainingOrder
    folder: str
    digest: str


@dataclass(frozen=True)
class Assignment:
    """What every worker is told.

    Attributes:
        run: where instructions are read and models are written.
        items: the models, one after the other; they share base and settings.
        board: the actor that is told how far they are.
    """

    run: Run
    items: tuple[Item, ...]
    board: Any


def work(config: Mapping[str, Any]) -> None:
    """Train what is not finished, from the last checkpoint on; runs on each worker at once.

    What would fail again is told to the board, so that the job ends, and workers that are started once more do too.

    Args:
        config: the `Assignment`, by the name `assignment`; Ray Train passes nothing but mappings.

    Raises:
        TrainingError: the loss is no number, a checkpoint is of another base, or the memory does not do.
        EngineError: the base cannot be loaded.
    """
    assignment: Assignment = config["assignment"]
    board = assignment.board
    final = ray.get(board.final_error.remote())
    if final is not None:
        raise final
    try:
        _work(assignment)
    except Exception as error:
        final_error = _final(error)
        if final_error is None:
            if isinstance(error, EngineError):  # the hub, or this node: Ray Train starts the workers again at once
                time.sleep(_LOAD_PAUSE_S)
            raise
        ray.get(board.fail.remote(final_error))
        raise final_error from error


def _final(error: Exception) -> Exception | None:
    """Return an error that would be met again by every retry, worded for the user; None for any other."""
    cause = error.__cause__ if isinstance(error, EngineError) else error
    if isinstance(cause, Exception) and not isinstance(cause, TrainingError) and is_out_of_memory(cause):
        # A process that ended shortly before, such as a replica's or the last worker's, may not have freed the GPU yet.
        if isinstance(error, EngineError) and not isinstance(cause, MemoryError) and _gpu_is_shared():
            return None
        return TrainingError(
            f"a worker ran out of memory outside of a micro-batch (while loading, or in the optimizer): {error}. Use a"
            " larger GPU, training.quantize=4bit, training.shard=true on several, or a lower training.lora.rank"
        )
    if isinstance(error, EngineError):
        return error if classify(error).kind == "final" else None
    return error if isinstance(error, (TrainingError, UnknownTask, RunLost)) else None


def others_hold_memory(free: int, reserved: int, total: int) -> bool:
    """Return whether other processes hold memory of a GPU.

    Args:
        free: bytes of the GPU that are free.
        reserved: bytes that PyTorch's allocator holds in this process.
        total: bytes that the GPU has.
    """
    return free + reserved < total - _CONTEXT_BYTES


def _gpu_is_shared() -> bool:
    """Return whether other processes hold memory of this worker's GPU; False without a GPU."""
    if not torch.cuda.is_available():
        return False
    device = get_device()
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError:  # not even a CUDA context fits
        return True
    return others_hold_memory(free, torch.cuda.memory_reserved(device), total)


def _work(assignment: Assignment) -> None:
    run = assignment.run
    # All workers see the same: a record is written once, after the last step that all of them made together.
    to_do = [item for item in assignment.items if run.read_json(f"{item.folder}/training.json") is None]
    # Asked for once: later it differs between the worker that reports checkpoints and the others.
    checkpoint = ray.train.get_checkpoint()
    begun = None if checkpoint is None else _folder_of(checkpoint)
    device = get_device()
    drains = _Drains()
    # One limit for all models: they share base and settings.
    limit = _starting_limit(to_do[0].order, device, assignment.board) if to_do else None
    # What was begun goes first, before the checkpoints of others take the place of its own.
    for item in sorted(to_do, key=lambda item: item.folder != begun):
        _train(run, item, assignment.board, device, drains, checkpoint if item.folder == begun else None, limit)


def _folder_of(checkpoint: ray.train.Checkpoint) -> str:
    with checkpoint.as_directory() as folder:
        return folder_of(Path(folder))


def _train(
    run: Run,
    item: Item,
    board: Any,
    device: torch.device,
    drains: _Drains,
    checkpoint: ray.train.Checkpoint | None,
    limit: TokenLimit | None,
) -> None:
    order = item.order
    settings = order.settings
    context = ray.train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    examples = read_examples(run, order.table, order.variant, "train", order.tasks)
    held_back = read_held_back(run, order)
    if digest_of(examples, held_back) != item.digest:
        raise RuntimeError(f"the instructions of {run.label} have changed since the job began: run it again")
    # What is shared out goes to the device layer by layer: the whole may be too large for it.
    trainable = load_trainable(
        order.spec, torch.device("cpu") if settings.shard else device,
        attention=attention_for(order.spec, device, packing=settings.packing), **quantized(settings),
    )  # fmt: skip
    model = prepared(trainable.model, order)
    learner = Learner(model, trainable.turns, examples, settings, rank, world, device, limit)
    progress = Progressing(run, item, board, learner, trainable.turns, held_back, rank, world)
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            progress.take_up(load_checkpoint(model, learner.optimizer, Path(folder), order.base))
    while not progress.finished:
        progress.after(learner.step(progress.step, notice=drains.concern_me()))
    progress.finish()


def quantized(settings: TrainingSettings) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` that quantise a base.

    Raises:
        EngineError: bitsandbytes is not installed.
    """
    if settings.quantize == "none":
        return {}
    if find_spec("bitsandbytes") is None:
        raise EngineError("training.quantize=4bit wants bitsandbytes: pip install 'caslie_ray[quantize]'")
    how = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )
    return {"quantization_config": how}


def _starting_limit(order: TrainingOrder, device: torch.device, board: Any) -> TokenLimit:
    """Check before the base is loaded that this GPU holds it; return the token limit per micro-batch to begin with.

    Raises:
        EngineError: not even one sample fits.
    """
    configured = order.settings.micro_tokens
    limit = TokenLimit(configured, lambda text: board.warn.remote(text))
    if device.type == "cuda":
        card = torch.cuda.get_device_properties(device).total_memory / 2**30
        limit.tokens = starting_tokens(order.spec, order.settings, card)
        if limit.tokens < configured:
            board.warn.remote(
                f"by estimate a micro-batch of training.micro_tokens={configured} does not fit this GPU of {card:.1f}"
                f" GiB: a worker begins with {limit.tokens:,}; the result is the same"
            )
    return limit


def prepared(model: Any, order: TrainingOrder) -> Any:
    """Return a base with the adapter of an order on it, ready to be trained."""
    if order.settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return add_adapter(model, order.settings.lora, order.settings.seed)


class _Drains:
    """Whether this worker's node is announced to be taken away, asked for every other second."""

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._asked = -math.inf
        self._answer = False

    def concern_me(self) -> bool:
        """Whether it is."""
        if time.monotonic() - self._asked > _DRAIN_EVERY_S:
            self._asked = time.monotonic()
            self._answer = self._node in draining_nodes()
        return self._answer


class Progressing:
    """Where a training stands: what is reported, validated, kept, and when it is over.

    Every worker holds the same; the first one writes.
    """

    def __init__(
        self,
        run: Run,
        item: Item,
        board: Any,
        learner: Learner,
        turns: Turns,
        held_back: Examples,
        rank: int,
        world: int,
    ) -> None:
        self._run, self._board = run, board
        self._order, self._folder, self._digest = item
        self._begun = time.monotonic()
        self._spent = 0.0
        self._learner = learner
        self._turns = turns
        self._held_back = held_back
        self._rank, self._world = rank, world
        self._settings = self._order.settings
        self.step = 0
        self._curve: list[dict[str, float]] = []
        self._validations: list[dict[str, float]] = []
        self._best: dict[str, float] | None = None
        self._worse = 0
        self._cut = self._captions_cut = self._too_long = 0
        self._validated_after = self._settings.validation_steps(learner.steps)
        self._digests: dict[str, str] = {}
        self._checkpoints: list[int] = []
        self._warned = False
        self._tracking: Tracking | None = None
        if not rank:
            self._tracking = Tracking(run, self._folder, self._order.name, self._settings.trackers)

    @property
    def finished(self) -> bool:
        """Whether no step is left, or training ends early."""
        patience = self._settings.patience
        return self.step >= self._learner.steps or (patience is not None and self._worse >= patience)

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of a checkpoint."""
        self.step = state["step"]
        self._curve, self._validations = state["curve"], state["validations"]
        self._best, self._worse, self._digests = state["best"], state["worse"], state["digests"]
        self._spent, self._checkpoints = state["seconds"], state["checkpoints"]
        self._cut, self._too_long = state["cut"], state["too_long"]
        self._captions_cut = state.get("captions_cut", 0)  # older checkpoints have none
        for row in self._curve:
            self._track("train", row)
        for row in self._validations:
            self._track("validation", row)

    def after(self, done: Step) -> None:
        """Take note of a step; validate and report where it is time to."""
        self.step = done.step + 1
        if done.tokens:
            self._curve.append({"step": done.step, "loss": done.loss, "rate": done.rate, "norm": done.norm})
            self._track("train", self._curve[-1])
        if done.step < self._learner.epoch_steps:  # each sample once
            self._cut += done.cut
            self._captions_cut += done.captions_cut
            self._too_long += done.left_out
        if not self._rank:
            self._board.tell.remote(self._order.name, self.step, done.loss)
        if len(self._held_back) and self.step in self._validated_after:
            self._validate()
        told = done.notice and not self._warned
        self._warned = done.notice
        if told or self.finished or self.step % self._settings.checkpoint_steps == 0:
            self._report()

    def finish(self) -> None:
        """Write the last adapter, and the record that says that the model is finished."""
        if self._rank:
            return
        self._put_adapter("last")
        if self._tracking is not None:
            self._tracking.close()
        self._run.write_json(f"{self._folder}/training.json", self._record())

    @property
    def _seconds(self) -> float:
        """Spent on this model so far, with what came before its last checkpoint."""
        return round(self._spent + time.monotonic() - self._begun, 2)

    def _track(self, kind: str, row: Mapping[str, float]) -> None:
        if self._tracking is not None:
            values = {f"{kind}/{name}": value for name, value in row.items() if name != "step"}
            self._tracking.log(values, int(row["step"]))

    def _validate(self) -> None:
        found = {"step": float(self.step)}
        loss = self._learner.validation_loss(self._held_back)
        if loss is not None:
            found["loss"] = loss
        # Workers that hold parts of a base would have to write their answers in step; one alone must not differ.
        if not self._settings.shard:
            found["metric"] = mean_primary(
                self._learner.model, self._turns, self._held_back, rows=self._settings.micro_batch,
                new_tokens=self._order.spec.max_new_tokens, rank=self._rank, world=self._world,
            )  # fmt: skip
        self._validations.append(found)
        self._track("validation", found)
        if self._best is None or better(found, self._best):
            self._best, self._worse = found, 0
            if not self._rank:
                self._put_adapter("best")
        else:
            self._worse += 1

    def _report(self) -> None:
        """Report a checkpoint; every worker comes here at the same step."""
        self._checkpoints.append(self.step)
        told = {"step": self.step, "steps": self._learner.steps}
        if self._rank:
            ray.train.report(told)
            return
        if self._tracking is not None:
            self._tracking.flush()
        with tempfile.TemporaryDirectory() as folder:
            state = {"base": self._order.base, "folder": self._folder, **self._state()}
            save_checkpoint(self._learner.model, self._learner.optimizer, Path(folder), state)
            # Ray Train writes checkpoints by itself, without the lease.
            self._run.check_lease()
            ray.train.report(told, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step, "curve": self._curve, "validations": self._validations, "best": self._best,
            "worse": self._worse, "digests": self._digests, "seconds": self._seconds,
            "checkpoints": self._checkpoints, "cut": self._cut, "captions_cut": self._captions_cut,
            "too_long": self._too_long,
        }  # fmt: skip

    def _record(self) -> dict[str, Any]:
        order = self._order
        return {
            "model": order.name, "variant": order.variant, "tasks": list(order.tasks), "base": order.base,
            "checkpoint": order.spec.checkpoint, "examples": self._digest, "steps": self.step, "seconds": self._seconds,
            "checkpoints": self._checkpoints, "adapters": self._digests, "best": self._best, "curve": self._curve,
            "validations": self._validations, "cut": self._cut, "captions_cut": self._captions_cut,
            "too_long": self._too_long,
        }  # fmt: skip

    def _put_adapter(self, name: str) -> None:
        """Write the adapter into the run, its settings last: a folder without them is no adapter."""
        run, order, place = self._run, self._order, f"{self._folder}/{name}"
        with tempfile.TemporaryDirectory() as folder:
            save_adapter(self._learner.model, Path(folder), {"base": order.base, "checkpoint": order.spec.checkpoint})
            self._digests[name] = content_id((Path(folder) / "adapter_model.safetensors").read_bytes())
            files = sorted(Path(folder).iterdir(), key=lambda file: file.name == "adapter_config.json")
            for file in files:
                run.put(run.path(place, file.name), file.read_bytes())


def better(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    """Return whether one validation is better than another.

    By the loss: on the few samples of a validation the metric is mostly chance. It decides between equal losses.
    """

    def worth(found: Mapping[str, float]) -> tuple[float, float]:
        return -round(found.get("loss", math.inf), 4), found.get("metric", -math.inf)

    return worth(one) > worth(other)
