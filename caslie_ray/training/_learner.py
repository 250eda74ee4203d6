"""Optimiser steps of one worker, alone or among others; nothing here knows of Ray."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch import distributed as dist

from caslie_ray.engines.cutting import PromptTooLong
from caslie_ray.engines.trainable import Turn, Turns
from caslie_ray.profiles.training import TrainingSettings
from caslie_ray.training._adapter import trained_parameters
from caslie_ray.training._batches import MicroBatch, micro_batches
from caslie_ray.training._examples import Examples, batch_at, share_of
from caslie_ray.training._model import ResponseLoss
from caslie_ray.training._parallel import parallel_to
from caslie_ray.training._schedule import rate_at

__all__ = ["Learner", "Step", "TrainingError"]


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and how to mend it."""


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
    the batch is cut: into workers, into micro-batches, or short at the end of an epoch.

    Args:
        model: a causal model with an adapter; where the base is to be shared out, it may lie on the CPU.
        turns: writes its prompts and answers.
        examples: what it learns from.
        settings: the hyperparameters.
        rank: which worker this is.
        world: how many workers there are; above 1 the process group must stand.
        device: where this one computes; by default where the model lies.
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
    ) -> None:
        self._turns = turns
        self._examples = examples
        self._settings = settings
        self._rank, self._world = rank, world
        self._parameters = [parameter for _, parameter in trained_parameters(model)]
        self._device = device or self._parameters[0].device
        self.model = model
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
            TrainingError: the loss is no number; the message has the step and the ids of the samples.
        """
        # What is left out at random is a function of the step, so that a step done again is the same step.
        torch.manual_seed(_seed(self._settings.seed, number, self._rank))
        self._loss_of.train()
        batch = batch_at(number, len(self._examples), self._settings.global_batch, self._settings.seed)
        mine = share_of(batch, self._examples.characters, self._rank, self._world)
        turns, rows, left_out = self._encode(mine)
        parts = self._cut(turns)
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for place, part in enumerate(parts):
            with self._parallel.waiting(last=place == len(parts) - 1):
                loss = self._loss(part)
                loss.backward()
            value = float(loss.detach())
            if not math.isfinite(value):
                self._name_bad(part, [rows[row] for row in part.rows], number)
            total += value
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
        """
        self._loss_of.eval()
        total = tokens = 0.0
        held, self._examples = self._examples, examples
        try:
            mine = range(self._rank, len(examples), self._world)
            turns, _, _ = self._encode(list(mine))
            for part in self._cut(turns):
                total += float(self._loss(part, trained=False))
                tokens += part.answers
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

    def _cut(self, turns: Sequence[Turn]) -> Sequence[MicroBatch]:
        chosen = self._settings
        parts = list(
            micro_batches(
                turns, chosen.micro_batch, chosen.micro_tokens, self._turns.pad,
                pack=chosen.packing, alone_above=self._turns.switch,
            )
        )  # fmt: skip
        lacking = self._parallel.passes(max(1, len(parts))) - len(parts)
        return [*parts, *(self._nothing() for _ in range(lacking))]

    def _nothing(self) -> MicroBatch:
        ids = torch.full((1, 1), self._turns.pad, dtype=torch.long)
        return MicroBatch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.full_like(ids, -100), 0, ())

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
