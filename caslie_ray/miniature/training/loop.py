"""The training loop that every miniature model shares: seeded, resumable, one thread."""

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn

__all__ = ["Plan", "fit"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast one phase trains: steps, samples a step, and the peak learning rate.

    The rate rises over the first twentieth of the steps and falls along a half cosine to nought.
    """

    steps: int
    batch: int
    rate: float

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warm = max(1, self.steps // 20)
        if step < warm:
            return self.rate * (step + 1) / warm
        return self.rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))


def fit(
    name: str,
    module: nn.Module,
    parameters: Iterable[nn.Parameter],
    plan: Plan,
    loss_of: Callable[[Random], Tensor],
    *,
    seed: int,
    state: Path,
    save_every: int = 100,
) -> None:
    """Train `module` in place and leave its last state in the file `state`.

    Each step draws its samples from a generator of its own, made of seed, name and step, so a run that was
    stopped goes on from `state` as though it had not been; a finished one is loaded and not trained again.
    """
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    optimiser = torch.optim.AdamW(wanted, lr=plan.rate, weight_decay=0.01, betas=(0.9, 0.98))
    start = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        module.load_state_dict(saved["module"])
        optimiser.load_state_dict(saved["optimiser"])
        start = saved["step"]
        log.info("%s: goes on from step %d of %d", name, start, plan.steps)
    module.train()
    began, losses = time.monotonic(), []
    for step in range(start, plan.steps):
        for group in optimiser.param_groups:
            group["lr"] = plan.rate_at(step)
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(Random(f"{seed}/{name}/{step}"))
        loss.backward()
        nn.utils.clip_grad_norm_(wanted, 1.0)
        optimiser.step()
        losses.append(loss.item())
        done = step + 1
        if done % save_every == 0 or done == plan.steps:
            _save(state, module, optimiser, done)
            recent = losses[-save_every:]
            log.info("%s: step %d of %d, loss %.4f, %.0f s", name, done, plan.steps,
                     sum(recent) / len(recent), time.monotonic() - began)  # fmt: skip
    module.eval()


def _save(state: Path, module: nn.Module, optimiser: torch.optim.Optimizer, step: int) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    unfinished = state.with_suffix(".part")
    torch.save({"module": module.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, unfinished)
    unfinished.replace(state)
