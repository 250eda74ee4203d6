"""Out of memory in training: the same step in smaller micro-batches, or a final error that names the sample."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed as dist
from torch.multiprocessing.spawn import spawn

from caslie_ray.engines.trainable import load_trainable
from caslie_ray.profiles import LoraSettings, load_profile
from caslie_ray.profiles.training import TrainingSettings
from caslie_ray.storage.run import Run, open_run
from caslie_ray.training import TrainingError, train
from caslie_ray.training._adapter import add_adapter, trained_parameters
from caslie_ray.training._optimizer_steps import Learner
from caslie_ray.training._validation import mean_primary
from tests.training.small_card import MARKS, Phase, optimizer_on_small_card, small_card, work_on_small_card
from tests.training.test_job import SETTINGS, write_instructions
from tests.training.test_optimizer_steps import SPEC, examples, learner

STEPS = 4
PHASES: tuple[Phase, ...] = ("forward", "backward")
LAYER = 1
FITS = 150
"""Tokens; the longest of the examples has some 70, and a step of 8 some 500."""


def trained(one: Learner) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trained_parameters(one.model)}


def assert_same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert torch.linalg.norm(found[name] - value) <= 1e-4 * torch.linalg.norm(value), name


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_step_that_runs_out_of_memory_gives_the_same_result(phase: Phase, checkpointing: bool) -> None:
    plain, small = learner(), learner()
    if checkpointing:
        small.model.enable_input_require_grads()
        small.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for number in range(STEPS):
        wanted = plain.step(number)
        with small_card(LAYER, FITS, phase) as sizes:
            found = small.step(number)
        assert found.loss == pytest.approx(wanted.loss, rel=1e-5)
        assert found.norm == pytest.approx(wanted.norm, rel=1e-4)
        assert (found.tokens, found.read) == (wanted.tokens, wanted.read)
        # The limit is remembered: only the first step meets the end of the memory.
        assert (max(sizes) > FITS) is (number == 0)
    assert_same(trained(small), trained(plain))


def test_a_lower_limit_is_logged_once_with_the_setting_to_change(caplog: pytest.LogCaptureFixture) -> None:
    one = learner()
    with caplog.at_level(logging.WARNING), small_card(LAYER, 300, "backward"):
        for number in range(3):
            one.step(number)
    (message,) = [record.getMessage() for record in caplog.records if "out of memory" in record.getMessage()]
    assert "training.micro_tokens=" in message


def test_a_sample_that_does_not_fit_alone_is_named() -> None:
    one = learner()
    with small_card(LAYER, 20, "backward"), pytest.raises(TrainingError) as caught:
        one.step(2)
    message = str(caught.value)
    for word in ("step 2: sample 0000", "tokens", "training.micro_tokens", "lineup.base.context",
                 "training.gradient_checkpointing", "training.quantize"):  # fmt: skip
        assert word in message


def test_a_validation_that_runs_out_of_memory_gives_the_same_result() -> None:
    one = learner()
    held_back = examples(24)
    found = []
    for tokens in (10_000, FITS):
        with small_card(LAYER, tokens, "forward"):
            metric = mean_primary(one.model, one._turns, held_back, rows=16, new_tokens=4)
            found.append((one.validation_loss(held_back), metric))
    (loss, metric), (small_loss, small_metric) = found
    assert small_loss == pytest.approx(loss, rel=1e-5)
    assert small_metric == metric


def test_a_validation_sample_that_does_not_fit_alone_is_named() -> None:
    one = learner()
    with small_card(LAYER, 20, "forward"), pytest.raises(TrainingError, match="sample 0000"):
        mean_primary(one.model, one._turns, examples(4), rows=4, new_tokens=4)
    with small_card(LAYER, 20, "forward"), pytest.raises(TrainingError, match="sample 0000"):
        one.validation_loss(examples(4))


def left_by(one: Learner, fits: int, phase: Phase) -> dict[str, Any]:
    """Losses, adapter and number of forward passes of a training on a card that so many tokens fit."""
    with small_card(LAYER, fits, phase) as sizes:
        losses = [one.step(number).loss for number in range(STEPS)]
        losses.append(one.validation_loss(examples(9)) or 0.0)
    return {"adapter": trained(one), "losses": losses, "passes": len(sizes)}


def worker(rank: int, folder: Path) -> None:
    """One of two workers; only the second has a small card, for each phase in a training of its own."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    for phase in PHASES:
        chosen = TrainingSettings(global_batch=16, learning_rate=1e-3, lora=LoraSettings(rank=4))
        model, turns = load_trainable(SPEC, torch.device("cpu"))
        one = Learner(add_adapter(model, chosen.lora, 0), turns, examples(), chosen, rank, 2)
        torch.save(left_by(one, FITS if rank else 10_000, phase), folder / f"{phase}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.timeout(600)
def test_one_of_two_workers_may_run_out_of_memory(tmp_path: Path) -> None:
    plain = left_by(learner(global_batch=16), 10_000, "forward")
    spawn(worker, (tmp_path,), nprocs=2)
    for phase in PHASES:
        large, small = (torch.load(tmp_path / f"{phase}-{rank}.pt") for rank in (0, 1))
        for found in (large, small):
            assert found["losses"] == pytest.approx(plain["losses"], rel=1e-5)
            assert_same(found["adapter"], plain["adapter"])
        assert small["passes"] > large["passes"]


def test_sharded_workers_end_with_the_setting_to_change() -> None:
    one = learner()
    one._strategy.collective = True  # as of FsdpStrategy, whose other workers would wait in the pass that failed
    with (
        small_card(LAYER, FITS, "forward"),
        pytest.raises(TrainingError, match=r"shard=true .* training.micro_tokens="),
    ):
        one.step(0)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return write_instructions(open_run(str(tmp_path / "run")))


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (work_on_small_card, "step 0: sample 0000"),
        (optimizer_on_small_card, "ran out of memory outside of a micro-batch"),
    ],
)
def test_what_would_run_out_of_memory_again_is_not_tried_again(
    run: Run, monkeypatch: pytest.MonkeyPatch, entry: Any, message: str
) -> None:
    monkeypatch.setattr("caslie_ray.training._trainer.train_worker", entry)
    with pytest.raises(TrainingError, match=message):
        train(run, load_profile("mini", [*SETTINGS, "training.max_failures=3"]), quiet=True)
    attempts = (Path(run.root) / MARKS).read_text().split()
    assert len(attempts) <= 2  # Ray Train may have started the next workers, which stop at once
