"""What profiles work out, so that no caller does."""

from __future__ import annotations

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


def test_a_model_by_itself_uses_the_settings_of_alone_and_keeps_the_rest() -> None:
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
def test_the_settings_of_alone_are_checked(setting: str, why: str) -> None:
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
