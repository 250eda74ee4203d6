"""Optimiser steps of one worker, alone or among others; nothing here knows of Ray."""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist

from caslie_ray.engines.cutting import PromptTooLong
from caslie_ray.engines.trainable import Turn, Turns
from caslie_ray.profiles.training import TrainingSettings
from caslie_ray.training._adapter import trained_parameters
from caslie_ray.training._batches import MicroBatch, micro_batches, pack_limit
from caslie_ray.training._examples import Examples, batch_at, share_of
from caslie_ray.training._limit import OutOfMemory, TokenLimit, within_memory
from caslie_ray.training._model import ResponseLoss
from caslie_ray.training._parallel import parallel_to
from caslie_ray.training._schedule import rate_at

__all__ = ["Learner", "Step", "TrainingError", "too_large"]


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and how to mend it."""


def too_large(sample_id: str, tokens: int, context: int, reason: str) -> str:
    """Return the error message for a sample that runs out of memory alone."""
    return (
        f"sample {sample_id} does not fit the memory: its {tokens:,} tokens ran out of it in a micro-batch of its own"
        f" ({reason}). Lower lineup.base.context (now {context}), set training.gradient_checkpointing=true or"
        " training.quantize=4bit, or use a larger GPU; a lower training.micro_tokens alone does not help"
    )


class Step(NamedTuple):
    """What one optimiser step did, over all workers.

    Attributes:
        step: its number, from 0.
        loss: mean loss of an answer's token, in nats; 0 where there is none.
        tokens: tokens that loss was taken of; 0 where no sample of the step fits the context, and nothing was learned.
        read: tokens that went through the model, padding left out.
        rate: the learning rate.
        norm: length of the gradient before it was clipped.
        cut: prompts that lost words.
        left_out: examples that do not fit the context.
        notice: whether some worker's node is announced to be taken away.
        captions_cut: prompts whose captions lost words.
    """

    step: int
    loss: float
    tokens: int
    read: int
    rate: float
    norm: float
    cut: int
    left_out: int
    notice: bool
    captions_cut: int = 0


class Learner:
    """Trains an adapter, one optimiser step after the other.

    The loss of a step is the sum over the answers' tokens of the whole global batch, divided by their number, however
    the batch is cut: into workers, into micro-batches, or short at the end of an epoch. A micro-batch that runs out of
    memory is cut in smaller ones and repeated, on this worker alone.

    Args:
        model: a causal model with an adapter; where the base is to be shared out, it may lie on the CPU.
        turns: writes its prompts and answers.
        examples: what it learns from.
        settings: the hyperparameters.
        rank: which worker this is.
        world: how many workers there are; above 1 the process group must stand.
        device: where this one computes; by default where the model lies.
        limit: token limit per micro-batch of this worker; by default `micro_tokens`, lowered after out of memory.
    """

    def __init__(
        self,
        model: Any,
        turns: Turns,
        examples: Examples,
        settings: TrainingSettings,
        rank: int = 0,
        world: int = 1,
        device: torch.device | None = None,
        limit: TokenLimit | None = None,
    ) -> None:
        self._turns = turns
        self._examples = examples
        self._settings = settings
        self._rank, self._world = rank, world
        self._parameters = [parameter for _, parameter in trained_parameters(model)]
        self._device = device or self._parameters[0].device
        self.model = model
        self._limit = limit or TokenLimit(settings.micro_tokens)
        self._attention = str(model.get_base_model().config._attn_implementation)
        self._loss_of = ResponseLoss(model)
        self._parallel = parallel_to(self._loss_of, world, self._device, shard=settings.shard)
        self.optimizer = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.steps = settings.total_steps(len(examples))
        self.epoch_steps = settings.steps_per_epoch(len(examples))
        self._nothing_since = 0
        self._warmup = settings.warmup_steps(len(examples))

    def step(self, number: int, *, notice: bool = False) -> Step:
        """Make one optimiser step.

        Args:
            number: of the step, from 0.
            notice: whether this worker's node is announced to be taken away; all workers learn of it.

        Raises:
            TrainingError: the loss is no number, or a sample does not fit the memory alone; the message has the step
                and the ids of the samples.
        """
        # What is left out at random is a function of the step, so that a step done again is the same step.
        torch.manual_seed(_seed(self._settings.seed, number, self._rank))
        self._loss_of.train()
        batch = batch_at(number, len(self._examples), self._settings.global_batch, self._settings.seed)
        mine = share_of(batch, self._examples.characters, self._rank, self._world)
        turns, rows, left_out = self._encode(mine)
        self.optimizer.zero_grad(set_to_none=True)

        def learn(part: MicroBatch) -> float:
            value = self._add_gradients(part)
            if not math.isfinite(value):
                self._name_bad(part, [rows[row] for row in part.rows], number)
            return value

        parts, losses = self._run(turns, rows, learn, f"step {number}")
        total = sum(losses)
        tokens = sum(part.answers for part in parts)
        cut = sum(turn.cut for turn in turns)
        read = sum(len(turn.ids) for turn in turns)
        captions_cut = sum(turn.captions_cut for turn in turns)
        loss_sum, all_tokens, all_cut, all_left, all_read, noticed, all_captions_cut = self._summed(
            [total, tokens, cut, left_out, read, notice, captions_cut]
        )
        if not math.isfinite(loss_sum):
            raise TrainingError(f"step {number}: the loss of another worker is {loss_sum}")
        if not all_tokens:
            return self._without_samples(number, int(all_left), notice=noticed > 0)
        self._nothing_since = number + 1
        self._parallel.add_up(self._parameters)
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.div_(all_tokens)
        norm = float(nn.utils.clip_grad_norm_(self._parameters, self._settings.clip))
        if not math.isfinite(norm):
            raise TrainingError(
                f"step {number}: the gradient is {norm}, though the loss is {loss_sum / all_tokens:.4f}; lower"
                f" training.learning_rate. Samples: {', '.join(self._examples.sample_id(row) for row in rows)}"
            )
        rate = rate_at(number, self.steps, self._warmup, self._settings.learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return Step(
            number, loss_sum / all_tokens, int(all_tokens), int(all_read), rate, norm, int(all_cut), int(all_left),
            noticed > 0, int(all_captions_cut),
        )  # fmt: skip

    def _without_samples(self, number: int, left_out: int, *, notice: bool) -> Step:
        """A step of which no sample fits the context; a whole epoch of them is an error."""
        if number + 1 - self._nothing_since >= self.epoch_steps:
            raise TrainingError(
                f"step {number}: none of the {len(self._examples)} samples fits the context of"
                f" {self._turns.context} tokens; raise lineup.base.context"
            )
        rate = rate_at(number, self.steps, self._warmup, self._settings.learning_rate)
        return Step(number, 0.0, 0, 0, rate, 0.0, 0, left_out, notice)

    @torch.no_grad()
    def validation_loss(self, examples: Examples) -> float | None:
        """Return the mean loss of an answer's token over examples, in nats; the workers share them out.

        None where none of them fits the context, or the loss is no number.

        Raises:
            TrainingError: a sample does not fit the memory alone.
        """
        self._loss_of.eval()
        held, self._examples = self._examples, examples
        try:
            mine = range(self._rank, len(examples), self._world)
            turns, rows, _ = self._encode(list(mine))
            parts, losses = self._run(turns, rows, lambda part: float(self._loss(part, trained=False)), "validation")
            total, tokens = sum(losses), sum(part.answers for part in parts)
        finally:
            self._examples = held
        summed, count = self._summed([total, tokens])
        return summed / count if count and math.isfinite(summed) else None

    def _encode(self, indices: Sequence[int]) -> tuple[list[Turn], list[int], int]:
        """The turns of examples, the examples that they are of, and how many do not fit."""
        turns, rows = [], []
        for index in indices:
            try:
                turns.append(self._turns.encode(self._examples.prompt(index), self._examples.response(index)))
            except PromptTooLong:
                continue
            rows.append(index)
        return turns, rows, len(indices) - len(rows)

    def _run(
        self, turns: Sequence[Turn], rows: Sequence[int], compute: Callable[[MicroBatch], float], where: str
    ) -> tuple[list[MicroBatch], list[float]]:
        """Cut turns into micro-batches and compute a value of each; return both.

        Whatever a micro-batch that runs out of memory leaves behind is not counted: it and the rest are cut again.

        Args:
            turns: prompts with their answers.
            rows: the example that each turn is of.
            compute: either returns, or has no effect.
            where: for messages.

        Raises:
            TrainingError: a turn does not fit the memory alone.
        """
        done: list[MicroBatch] = []
        values: list[float] = []
        waiting = deque(self._cut(turns, range(len(turns))))
        while waiting:
            part = waiting.popleft()
            value = within_memory(functools.partial(compute, part))
            if isinstance(value, OutOfMemory):
                self._refuse_what_cannot_shrink(part, rows, value.reason, where)
                self._limit.lower(part.labels.numel())
                left = [row for other in (part, *waiting) for row in other.rows]
                waiting = deque(self._cut(turns, left))
                continue
            done.append(part)
            values.append(value)
        return done, values

    def _refuse_what_cannot_shrink(self, part: MicroBatch, rows: Sequence[int], reason: str, where: str) -> None:
        tokens = part.labels.numel()
        if self._parallel.collective:
            raise TrainingError(
                f"{where}: out of memory on a micro-batch of {tokens:,} tokens. With training.shard=true a pass needs"
                " every worker, so one worker cannot repeat it in smaller parts: set"
                f" training.micro_tokens={max(1, min(self._limit.tokens, tokens) // 2)} (now"
                f" {self._limit.tokens}), training.gradient_checkpointing=true, or more workers ({reason})"
            )
        if len(part.rows) == 1:
            sample = self._examples.sample_id(rows[part.rows[0]])
            raise TrainingError(f"{where}: {too_large(sample, tokens, self._turns.context, reason)}")

    def _cut(self, turns: Sequence[Turn], of: Iterable[int]) -> list[MicroBatch]:
        chosen, tokens = self._settings, self._limit.tokens
        parts = list(
            micro_batches(
                turns, chosen.micro_batch, pack_limit(self._attention, tokens) if chosen.packing else tokens,
                self._turns.pad, pack=chosen.packing, alone_above=self._turns.switch, of=of,
            )
        )  # fmt: skip
        lacking = self._parallel.passes(len(parts)) - len(parts)
        return [*parts, *(self._nothing() for _ in range(lacking))]

    def _nothing(self) -> MicroBatch:
        ids = torch.full((1, 1), self._turns.pad, dtype=torch.long)
        return MicroBatch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.full_like(ids, -100), 0, ())

    def _add_gradients(self, part: MicroBatch) -> float:
        """Add a micro-batch's gradients to those of the step; return its loss."""
        loss = self._loss(part)
        # Out of memory half-way, backward() would leave the gradients of some layers behind. grad() returns all of them
        # or raises, and adding them up allocates nothing.
        found = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        for parameter, gradient in zip(self._parameters, found, strict=True):
            if parameter.grad is None:
                parameter.grad = gradient
            elif gradient is not None:
                parameter.grad.add_(gradient)
        return float(loss.detach())

    def _loss(self, part: MicroBatch, *, trained: bool = True) -> Tensor:
        inputs = {name: value.to(self._device) for name, value in part.inputs.items()}
        module = self._parallel.module if trained else self._loss_of
        loss: Tensor = module(inputs, part.labels.to(self._device))
        return loss

    def _name_bad(self, part: MicroBatch, rows: Sequence[int], number: int) -> None:
        raise TrainingError(
            f"step {number}: the loss is not a number, for one of the samples"
            f" {', '.join(self._examples.sample_id(row) for row in rows)}; look at"
            " them, or lower training.learning_rate"
        )

    def _summed(self, values: Sequence[float]) -> list[float]:
        if self._world == 1:
            return [float(value) for value in values]
        told = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.all_reduce(told)
        return [float(value) for value in told.tolist()]


def _seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step) * 1_009 + rank
