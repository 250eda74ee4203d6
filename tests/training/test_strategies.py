"""Workers that hold copies of a base, or parts of it, train the adapter that one worker trains alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import distributed as dist
from torch.multiprocessing.spawn import spawn

from caslie_ray.engines import EngineSpec
from caslie_ray.engines.trainable import load_trainable
from caslie_ray.profiles import LoraSettings
from caslie_ray.profiles.training import TrainingSettings
from caslie_ray.training._adapter import add_adapter, trained_parameters
from caslie_ray.training._memory import estimate
from caslie_ray.training._optimizer_steps import Learner
from tests.training.test_optimizer_steps import SPEC, examples

STEPS = 4


def train(folder: Path, spec: EngineSpec, *, shard: bool, rank: int = 0, world: int = 1) -> None:
    """Make steps, take a validation, and leave adapter and losses in a folder."""
    # So many rows a pass that workers have different numbers of them.
    chosen = TrainingSettings(
        global_batch=7, micro_batch=2, learning_rate=1e-3, lora=LoraSettings(rank=4), shard=shard,
        gradient_checkpointing=True,
    )  # fmt: skip
    model, turns = load_trainable(spec, torch.device("cpu"))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    one = Learner(add_adapter(model, chosen.lora, 0), turns, examples(21), chosen, rank, world)
    losses: list[float | None] = [one.step(number).loss for number in range(STEPS)]
    losses.append(one.validation_loss(examples(5)))
    held = sum(
        part.to_local().numel() if hasattr(part, "to_local") else part.numel()
        for part in one.model.parameters()
        if not part.requires_grad
    )
    adapter = {name: value.detach() for name, value in trained_parameters(one.model)}
    torch.save({"adapter": adapter, "losses": losses, "held": held}, folder / f"{world}-{shard}-{rank}.pt")


def worker(rank: int, folder: Path, spec: EngineSpec, shard: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting-{shard}", rank=rank, world_size=2)
    train(folder, spec, shard=shard, rank=rank, world=2)
    dist.destroy_process_group()


def read(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / f"{name}.pt")
    return found


@pytest.mark.parametrize("shard", [False, True], ids=["copied", "sharded"])
def test_two_workers_train_what_one_trains(tmp_path: Path, shard: bool) -> None:
    train(tmp_path, SPEC, shard=False)
    spawn(worker, (tmp_path, SPEC, shard), nprocs=2)
    alone, first, second = (read(tmp_path, name) for name in ("1-False-0", f"2-{shard}-0", f"2-{shard}-1"))
    assert first["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    for one in (first, second):
        for name, wanted in alone["adapter"].items():
            assert torch.linalg.norm(one["adapter"][name] - wanted) <= 1e-4 * torch.linalg.norm(wanted)
    share = first["held"] / alone["held"]
    assert share == pytest.approx(0.5 if shard else 1.0, abs=0.01)


def test_a_sharded_base_needs_less_memory_per_worker() -> None:
    whole = TrainingSettings.model_validate({"num_workers": {"min": 4, "max": 8}})
    shared = whole.model_copy(update={"shard": True})
    assert estimate(SPEC, shared).weights == pytest.approx(estimate(SPEC, whole).weights / 4)


def test_sharding_and_quantising_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="do not go together"):
        TrainingSettings(shard=True, quantize="4bit")
