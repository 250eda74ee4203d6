"""What profiles work out, so that no caller does."""

from __future__ import annotations

from pathlib import Path

import pytest

from caslie_ray.profiles import ProfileError, TrainingSettings, load_profile
from caslie_ray.roles import resolve


def test_steps_of_the_released_training_set() -> None:
    training = TrainingSettings()
    assert training.steps_per_epoch(56_000) == 438  # the last batch holds 64
    assert training.total_steps(56_000) == 1314
    assert training.warmup_steps(56_000) == 66


def test_spec_carries_what_the_engine_needs() -> None:
    model = load_profile("caslie-m", ["lineup.base.generation.repetition_penalty=1.1"]).lineup.base
    spec = model.spec()
    assert (spec.checkpoint, spec.revision) == ("mistralai/Mistral-7B-Instruct-v0.3", "main")
    assert (spec.engine, spec.dtype, spec.device, spec.gpus) == ("auto", "bfloat16", "cuda", 0.35)
    assert (spec.context, spec.max_new_tokens) == (4096, 64)
    assert (spec.batch_size, spec.batch_tokens) == (16, 32768)
    assert dict(spec.generation) == {"repetition_penalty": 1.1}


def test_voters_go_by_given_cost() -> None:
    names = [voter.name for voter in load_profile("caslie-s").lineup.voters_by_cost()]
    assert names == ["llama-3b", "phi", "mistral", "llama-8b", "vision"]


def test_voters_without_cost_go_by_their_weights_and_unknown_ones_last(tmp_path: Path) -> None:
    overrides = ["lineup.voters.0.checkpoint=hub/not-here"]
    for position, megabytes in enumerate((4, 2, 3, 1), start=1):
        folder = tmp_path / str(position)
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(bytes(megabytes * 1000))
        overrides.append(f"lineup.voters.{position}.checkpoint={folder}")
    lineup = load_profile("mini", overrides).lineup
    assert [voter.name for voter in lineup.voters_by_cost()] == [
        "phi",
        "vision",
        "mistral",
        "llama-8b",
        "llama-3b",
    ]
    assert lineup.voters[0].call_cost() == float("inf")


def test_equal_costs_keep_the_order_of_the_profile() -> None:
    lineup = load_profile("caslie-s", [f"lineup.voters.{n}.cost=1.0" for n in range(5)]).lineup
    assert lineup.voters_by_cost() == lineup.voters


def test_a_model_by_itself_has_what_alone_says_and_keeps_the_rest() -> None:
    model = load_profile("caslie-m").lineup.captioner
    alone = model.by_itself()
    assert (model.resources.gpus, model.batch_size) == (0.5, 16)
    assert (alone.resources.gpus, alone.batch_size, alone.spec().gpus) == (1.0, 48, 1.0)
    assert (alone.resources.cpus, alone.resources.memory_gib) == (model.resources.cpus, model.resources.memory_gib)
    assert alone.context == model.context
    mini = load_profile("mini").lineup.captioner
    assert mini.by_itself() == mini


@pytest.mark.parametrize(
    ("setting", "why"),
    [("alone.gpus=1.5", "above 1 it must be a whole number"), ("alone.batch_tokens=100", "at least context")],
)
def test_what_alone_says_is_checked(setting: str, why: str) -> None:
    with pytest.raises(ProfileError, match=why):
        load_profile("mini", [f"lineup.captioner.{setting}"])


def test_staged_and_a_single_model_run_alone_and_streamed_shares() -> None:
    settings = [
        "lineup.captioner.alone.batch_size=5",
        "lineup.voters.phi.alone.batch_size=6",
        "lineup.base.alone.gpus=1",
    ]

    def batches(*more: str) -> list[int]:
        return [role.spec.batch_size for role in resolve(load_profile("mini", [*settings, *more])).roles]

    assert batches("schedule=streamed") == [16, 32, 32, 32, 32, 32]
    staged = batches("schedule=staged")
    assert staged[0] == 5
    assert sorted(staged[1:]) == [6, 32, 32, 32, 32]
    assert batches("schedule=streamed", "votes.rule=always") == [5]
