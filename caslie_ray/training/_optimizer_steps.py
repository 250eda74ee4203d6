"""Optimizer steps of one worker, alone or in a group; independent of Ray."""

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
from caslie_ray.training._errors import TrainingError, too_large
from caslie_ray.training._examples import Examples
from caslie_ray.training._learning_rate import rate_at
from caslie_ray.training._loss import ResponseLoss
from caslie_ray.training._sampler import batch_at, share_of
from caslie_ray.training._strategies import strategy_for
from caslie_ray.training._token_limit import OutOfMemory, TokenLimit, within_memory

__all__ = ["Learner", "Step"]


class Step(NamedTuple):
    """Result of one optimizer step, over all workers.

    Attributes:
        step: its number, from 0.
        loss: mean loss per answer token, in nats; 0 if there is none.
        tokens: answer tokens; 0 if no sample of the step fits the context, and nothing was learned.
        read: tokens that went through the model, without padding.
        rate: the learning rate.
        norm: gradient norm before clipping.
        cut: prompts that lost words.
        left_out: examples that do not fit the context.
        notice: whether some worker's node is about to be drained.
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
    """Trains an adapter, one optimizer step at a time.

    The loss of a step is the mean over the answer tokens of the global batch, whatever the number of workers and
    micro-batches, and in the short batch at the end of an epoch too. A micro-batch that runs out of memory is split and
    repeated on this worker alone.

    Args:
        model: a causal model with an adapter; if the base is to be sharded it may be on the CPU.
        turns: tokenizes its prompts and answers.
        examples: the training examples.
        settings: the hyperparameters.
        rank: this worker's rank.
        world: number of workers; above 1 the process group must be initialized.
        device: where this worker computes; by default the model's device.
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
        self.rank, self.world = rank, world
        self._parameters = [parameter for _, parameter in trained_parameters(model)]
        self._device = device or self._parameters[0].device
        self.model = model
        self._limit = limit or TokenLimit(settings.micro_tokens)
        self._attention = str(model.get_base_model().config._attn_implementation)
        self._loss_of = ResponseLoss(model)
        self._strategy = strategy_for(self._loss_of, world, self._device, shard=settings.shard)
        self.optimizer = torch.optim.AdamW(
            self._parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.steps = settings.total_steps(len(examples))
        self.epoch_steps = settings.steps_per_epoch(len(examples))
        self._empty_since = 0
        self._warmup = settings.warmup_steps(len(examples))

    def step(self, number: int, *, notice: bool = False) -> Step:
        """Make one optimizer step.

        Args:
            number: of the step, from 0.
            notice: whether this worker's node is about to be drained; shared with all workers.

        Raises:
            TrainingError: the loss is not finite, or a sample alone does not fit the memory; the message has the step
                and the ids of the samples.
        """
        # Dropout is a function of the step, so that a repeated step is the same step.
        torch.manual_seed(_seed(self._settings.seed, number, self.rank))
        self._loss_of.train()
        batch = batch_at(number, len(self._examples), self._settings.global_batch, self._settings.seed)
        mine = share_of(batch, self._examples.characters, self.rank, self.world)
        turns, rows, left_out = self._encode(self._examples, mine)
        ids = [self._examples.sample_id(row) for row in rows]
        self.optimizer.zero_grad(set_to_none=True)

        def learn(part: MicroBatch) -> float:
            value = self._add_gradients(part)
            if not math.isfinite(value):
                self._refuse_bad_loss([ids[row] for row in part.rows], number)
            return value

        parts, losses = self._run(turns, ids, learn, f"step {number}")
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
        self._empty_since = number + 1
        self._strategy.sum_gradients(self._parameters)
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad.div_(all_tokens)
        norm = float(nn.utils.clip_grad_norm_(self._parameters, self._settings.clip))
        if not math.isfinite(norm):
            raise TrainingError(
                f"step {number}: the gradient is {norm}, though the loss is {loss_sum / all_tokens:.4f}; lower"
                f" training.learning_rate. Samples: {', '.join(ids)}"
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
        """Return the result of a step without samples that fit the context; an epoch of such steps is an error."""
        if number + 1 - self._empty_since >= self.epoch_steps:
            raise TrainingError(
                f"step {number}: none of the {len(self._examples)} samples fits the context of"
                f" {self._turns.context} tokens; raise lineup.base.context"
            )
        rate = rate_at(number, self.steps, self._warmup, self._settings.learning_rate)
        return Step(number, 0.0, 0, 0, rate, 0.0, 0, left_out, notice)

    @torch.no_grad()
    def validation_loss(self, examples: Examples) -> float | None:
        """Return the mean loss per answer token, in nats; examples are sharded over the workers.

        None if no example fits the context, or the loss is not finite.

        Raises:
            TrainingError: a sample alone does not fit the memory.
        """
        self._loss_of.eval()
        turns, rows, _ = self._encode(examples, range(self.rank, len(examples), self.world))
        ids = [examples.sample_id(row) for row in rows]
        parts, losses = self._run(turns, ids, lambda part: float(self._loss(part, trained=False)), "validation")
        summed, count = self._summed([sum(losses), sum(part.answers for part in parts)])
        return summed / count if count and math.isfinite(summed) else None

    def _encode(self, examples: Examples, indices: Sequence[int]) -> tuple[list[Turn], list[int], int]:
        """Return the turns of the examples that fit, the indices of these, and how many do not fit."""
        turns, rows = [], []
        for index in indices:
            try:
                turns.append(self._turns.encode(examples.prompt(index), examples.response(index)))
            except PromptTooLong:
                continue
            rows.append(index)
        return turns, rows, len(indices) - len(rows)

    def _run(
        self, turns: Sequence[Turn], ids: Sequence[str], compute: Callable[[MicroBatch], float], where: str
    ) -> tuple[list[MicroBatch], list[float]]:
        """Cut turns into micro-batches and compute a value per micro-batch; return both.

        If a micro-batch runs out of memory, it and the remaining ones are cut again with a lower limit.

        Args:
            turns: prompts with their answers.
            ids: the sample id of each turn.
            compute: either returns, or has no effect.
            where: for messages.

        Raises:
            TrainingError: a turn alone does not fit the memory.
        """
        done: list[MicroBatch] = []
        values: list[float] = []
        waiting = deque(self._cut(turns, range(len(turns))))
        while waiting:
            part = waiting.popleft()
            value = within_memory(functools.partial(compute, part))
            if isinstance(value, OutOfMemory):
                self._refuse_what_cannot_shrink(part, ids, value.reason, where)
                self._limit.lower(part.labels.numel())
                left = [row for other in (part, *waiting) for row in other.rows]
                waiting = deque(self._cut(turns, left))
                continue
            done.append(part)
            values.append(value)
        return done, values

    def _refuse_what_cannot_shrink(self, part: MicroBatch, ids: Sequence[str], reason: str, where: str) -> None:
        tokens = part.labels.numel()
        if self._strategy.collective:
            raise TrainingError(
                f"{where}: out of memory on a micro-batch of {tokens:,} tokens. With training.shard=true a pass needs"
                " every worker, so one worker cannot repeat it in smaller parts: set"
                f" training.micro_tokens={max(1, min(self._limit.tokens, tokens) // 2)} (now"
                f" {self._limit.tokens}), training.gradient_checkpointing=true, or more workers ({reason})"
            )
        if len(part.rows) == 1:
            raise TrainingError(f"{where}: {too_large(ids[part.rows[0]], tokens, self._turns.context, reason)}")

    def _cut(self, turns: Sequence[Turn], of: Iterable[int]) -> list[MicroBatch]:
        chosen, tokens = self._settings, self._limit.tokens
        parts = list(
            micro_batches(
                turns, chosen.micro_batch, pack_limit(self._attention, tokens) if chosen.packing else tokens,
                self._turns.pad, pack=chosen.packing, alone_above=self._turns.switch, of=of,
            )
        )  # fmt: skip
        missing = self._strategy.passes(len(parts)) - len(parts)
        return [*parts, *(self._empty_part() for _ in range(missing))]

    def _empty_part(self) -> MicroBatch:
        ids = torch.full((1, 1), self._turns.pad, dtype=torch.long)
        return MicroBatch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.full_like(ids, -100), 0, ())

    def _add_gradients(self, part: MicroBatch) -> float:
        """Add the gradients of a micro-batch to those of the step; return its loss."""
        loss = self._loss(part)
        # If backward() ran out of memory, some layers would have accumulated gradients already. grad() returns all of
        # them or raises, and accumulating them allocates nothing.
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            if parameter.grad is None:
                parameter.grad = gradient
            elif gradient is not None:
                parameter.grad.add_(gradient)
        return float(loss.detach())

    def _loss(self, part: MicroBatch, *, trained: bool = True) -> Tensor:
        inputs = {name: value.to(self._device) for name, value in part.inputs.items()}
        module = self._strategy.module if trained else self._loss_of
        loss: Tensor = module(inputs, part.labels.to(self._device))
        return loss

    def _refuse_bad_loss(self, ids: Sequence[str], number: int) -> None:
        raise TrainingError(
            f"step {number}: the loss is not a number, for one of the samples {', '.join(ids)}; look at them, or lower"
            " training.learning_rate"
        )

    def _summed(self, values: Sequence[float]) -> list[float]:
        if self.world == 1:
            return [float(value) for value in values]
        summed = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.all_reduce(summed)
        return [float(value) for value in summed.tolist()]


def _seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step) * 1_009 + rank
