from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import torch

from caslie_ray.engines import EngineSpec
from caslie_ray.engines.trainable import load_trainable
from caslie_ray.profiles import LoraSettings, load_profile
from caslie_ray.profiles.training import TrainingSettings
from caslie_ray.training._adapter import add_adapter, trained_parameters
from caslie_ray.training._errors import TrainingError
from caslie_ray.training._examples import Examples
from caslie_ray.training._optimizer_steps import Learner
from tests.training.small_card import small_card

SPEC = EngineSpec("miniature:unim3-base", context=256, max_new_tokens=40)


def examples(count: int = 24) -> Examples:
    return Examples(
        pa.table(
            {
                "sample_id": [f"{number:032x}" for number in range(count)],
                "task": ["answerability_prediction"] * count,
                "prompt": [
                    f"Is the colour of item {number} red?\n{'so it seems ' * (number % 7)}" for number in range(count)
                ],
                "prompt_fields": pa.array([[[25, 30]]] * count, pa.list_(pa.list_(pa.int32()))),
                "response": ["yes" if number % 3 else "no, it is blue" for number in range(count)],
                "options": [["yes", "no"]] * count,
            }
        )
    )


def learner(found: Examples | None = None, **settings: Any) -> Learner:
    chosen = TrainingSettings(**{"global_batch": 8, "learning_rate": 1e-3, "lora": LoraSettings(rank=4), **settings})
    model, turns = load_trainable(SPEC, torch.device("cpu"))
    return Learner(add_adapter(model, chosen.lora, chosen.seed), turns, found or examples(), chosen)


def state(one: Learner) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trained_parameters(one.model)}


def test_only_the_adapter_is_trained_and_the_head_has_one() -> None:
    one = learner()
    names = [name for name, _ in trained_parameters(one.model)]
    assert all("lora_" in name for name in names)
    assert any("lm_head" in name for name in names)
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    for number in range(3):
        one.step(number)
    changed = {name for name, value in one.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == set(names)


@pytest.mark.parametrize(
    "settings", [{"micro_batch": 3}, {"micro_tokens": 120}, {"packing": True}], ids=["rows", "tokens", "packed"]
)
def test_how_a_batch_is_cut_does_not_change_the_step(settings: dict[str, Any]) -> None:
    whole, cut = learner(), learner(**settings)
    for number in range(4):
        first, second = whole.step(number), cut.step(number)
        assert second.loss == pytest.approx(first.loss, rel=1e-5)
        assert second.tokens == first.tokens
        assert second.norm == pytest.approx(first.norm, rel=1e-4)


def test_packs_hold_at_most_2048_tokens() -> None:
    found = examples(96)
    whole, packs = (learner(found, global_batch=96, micro_batch=96, packing=pack) for pack in (False, True))
    with small_card(1, 100_000, "forward") as sizes:
        done = packs.step(0)
    assert len(sizes) > 1
    assert max(sizes) <= 2048
    assert sum(sizes) == done.read
    assert done.loss == pytest.approx(whole.step(0).loss, rel=1e-5)


def test_the_loss_falls() -> None:
    one = learner(epochs=10, learning_rate=5e-3)
    losses = [one.step(number).loss for number in range(one.steps)]
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])


def test_the_loss_is_that_of_transformers_over_the_answers_tokens() -> None:
    one = learner(global_batch=24)
    turns = [one._turns.encode(examples().prompt(row), examples().response(row)) for row in range(24)]
    total = count = 0.0
    with torch.no_grad():
        for turn in turns:
            ids = torch.tensor([list(turn.ids)])
            labels = ids.clone()
            labels[:, : turn.start] = -100
            length = len(turn.ids) - turn.start
            total += float(one.model(input_ids=ids, labels=labels).loss) * length
            count += length
    assert one.step(0).loss == pytest.approx(total / count, rel=1e-5)


def test_a_nan_loss_is_reported_with_step_and_samples() -> None:
    one = learner()
    with torch.no_grad():
        dict(trained_parameters(one.model))["base_model.model.lm_head.lora_B.default.weight"].fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"step 2: the loss is not a number, for one of the samples 0{30}"):
        one.step(2)


def test_an_instruction_longer_than_the_context_loses_words_and_no_answer() -> None:
    held = examples().rows.to_pylist()
    held[3] |= {"prompt": "Review: " + "good " * 5000, "prompt_fields": [[8, 8 + 25000]]}
    held[4] |= {"prompt": "Fixed " * 5000, "prompt_fields": []}
    one = learner(Examples(pa.Table.from_pylist(held)), global_batch=24)
    done = one.step(0)
    assert (done.cut, done.left_out) == (1, 1)


def test_a_step_in_which_no_sample_fits_is_skipped_and_an_epoch_of_them_is_an_error() -> None:
    held = examples(9).rows.to_pylist()
    for row in held[1:]:
        row |= {"prompt": "Fixed " * 5000, "prompt_fields": []}
    one = learner(Examples(pa.Table.from_pylist(held)), global_batch=1)
    before = state(one)
    done = [one.step(number) for number in range(9)]
    assert sorted(step.tokens > 0 for step in done) == [False] * 8 + [True]
    assert sum(step.left_out for step in done) == 8
    assert any(not torch.equal(value, before[name]) for name, value in state(one).items())
    none = learner(Examples(pa.Table.from_pylist(held[1:])), global_batch=4)
    none.step(0)
    with pytest.raises(TrainingError, match="none of the 8 samples fits the context of 256 tokens; raise lineup"):
        none.step(1)


def test_a_validation_in_which_no_sample_fits_has_no_loss() -> None:
    held = examples(3).rows.to_pylist()
    for row in held:
        row |= {"prompt": "Fixed " * 5000, "prompt_fields": []}
    one = learner()
    assert one.validation_loss(Examples(pa.Table.from_pylist(held))) is None
    assert one.validation_loss(examples(3)) is not None


@pytest.mark.parametrize(("steps", "validations"), [(100, 3), (5, 3), (2, 3), (132, 2), (7, 1)])
def test_validations_are_spread_over_the_steps_and_the_last_is_at_their_end(steps: int, validations: int) -> None:
    after = TrainingSettings(validations=validations).validation_steps(steps)
    assert len(after) == min(steps, validations)
    assert max(after) == steps
    assert min(after) >= 1


def test_the_loss_of_smollm2_falls() -> None:
    base = load_profile("smol").lineup.base.spec()
    chosen = TrainingSettings(global_batch=6, micro_batch=6, learning_rate=1e-3, epochs=2, lora=LoraSettings(rank=4))
    model, turns = load_trainable(base, torch.device("cpu"))
    one = Learner(add_adapter(model, chosen.lora, chosen.seed), turns, examples(12), chosen)
    losses = [one.step(number).loss for number in range(one.steps)]
    assert losses[-1] < 0.7 * losses[0]
