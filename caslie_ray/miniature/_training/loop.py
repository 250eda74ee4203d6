"""The training loop of all miniature models: seeded, resumable, single-threaded."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn

from caslie_ray.miniature._training.muon import Muon

__all__ = ["Plan", "fit"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """The schedule of one phase: linear warm-up over the first 5% of the steps, then cosine decay to zero.

    Attributes:
        steps: number of steps.
        batch: samples per step.
        rate: peak learning rate.
    """

    steps: int
    batch: int
    rate: float

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        warm = max(1, self.steps // 20)
        if step < warm:
            return self.rate * (step + 1) / warm
        return self.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))


def fit(
    name: str,
    module: nn.Module,
    plan: Plan,
    loss_of: Callable[[Random, float], Tensor],
    *,
    seed: int,
    state: Path,
    frozen: str | None = None,
    save_every: int = 100,
) -> None:
    """Train `module` in place and save its last state.

    An interrupted run resumes exactly, since the random generator of each step depends only on seed, name and step; a
    finished one is loaded and not trained again. Matrices of the layers use Muon, other parameters AdamW.

    Args:
        name: name of the phase.
        module: the model.
        plan: the schedule.
        loss_of: returns the loss, given a random generator and the progress of the phase (0 to 1).
        seed: random seed.
        state: file of the saved state.
        frozen: substring of the names of parameters that are not trained.
        save_every: steps between saves.
    """
    optimisers = _optimisers(module, plan, frozen)
    trained = [
        parameter for optimiser in optimisers for group in optimiser.param_groups for parameter in group["params"]
    ]
    start = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        module.load_state_dict(saved["module"])
        for optimiser, kept in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        start = saved["step"]
        log.info("%s: resuming from step %d of %d", name, start, plan.steps)
    module.train()
    started, losses = time.monotonic(), []
    for step in range(start, plan.steps):
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = plan.rate_at(step)
        loss = loss_of(Random(f"{seed}/{name}/{step}"), step / plan.steps)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        for optimiser in optimisers:
            optimiser.step()
        losses.append(loss.item())
        done = step + 1
        if done % save_every == 0 or done == plan.steps:
            _save(state, module, optimisers, done)
            recent = losses[-save_every:]
            log.info("%s: step %d of %d, loss %.4f, %.0f s", name, done, plan.steps,
                     sum(recent) / len(recent), time.monotonic() - started)  # fmt: skip
    module.eval()


def _optimisers(module: nn.Module, plan: Plan, frozen: str | None) -> list[torch.optim.Optimizer]:
    trained = {
        name: parameter
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and not (frozen and frozen in name)
    }
    matrices = [parameter for name, parameter in trained.items() if ".layers." in name and parameter.ndim == 2]
    apart = {id(matrix) for matrix in matrices}
    others = [parameter for parameter in trained.values() if id(parameter) not in apart]
    optimisers: list[torch.optim.Optimizer] = [Muon(matrices, lr=plan.rate)] if matrices else []
    return [*optimisers, torch.optim.AdamW(others, lr=plan.rate, weight_decay=0.01, betas=(0.9, 0.98))]


def _save(state: Path, module: nn.Module, optimisers: Sequence[torch.optim.Optimizer], step: int) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    unfinished = state.with_suffix(".part")
    kept = [optimiser.state_dict() for optimiser in optimisers]
    torch.save({"module": module.state_dict(), "optimisers": kept, "step": step}, unfinished)
    unfinished.replace(state)
