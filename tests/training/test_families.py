"""LoRA on the families of the three bases, with tied and untied embeddings: trained, saved, merged, and asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from caslie_ray.engines import Engine, EngineSpec, Request, load_engine
from caslie_ray.engines.trainable import load_trainable
from caslie_ray.profiles import LoraSettings
from caslie_ray.profiles.training import TrainingSettings
from caslie_ray.prompts import Prompt
from caslie_ray.training._adapter import add_adapter, trained_parameters
from caslie_ray.training._checkpoints import save_adapter
from caslie_ray.training._export import merge_adapter
from caslie_ray.training._memory import estimate
from caslie_ray.training._optimizer_steps import Learner
from tests.engines import tiny
from tests.training.test_optimizer_steps import examples

_LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% else %} {{ m['content'] }} {{ eos_token }}{% endif %}{% endfor %}"
)
"""A template without a part of its own before an answer, as that of Llama-2."""

SETTINGS = TrainingSettings(global_batch=8, learning_rate=1e-2, epochs=3, lora=LoraSettings(rank=4, alpha=4))


def build(family: str, folder: Path, *, tied: bool) -> EngineSpec:
    """Save a tiny base of a family."""
    torch.manual_seed(0)
    words = tiny.tokenizer(template=_LLAMA2) if family == "llama2" else tiny.tokenizer()
    shape: dict[str, Any] = {
        "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 4 if family == "llama2" else 2,
        "max_position_embeddings": 1024, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "tie_word_embeddings": tied,
    }  # fmt: skip
    made: Any = MistralForCausalLM(MistralConfig(sliding_window=None, **shape)) if family == "mistral" else (
        LlamaForCausalLM(LlamaConfig(**shape))
    )  # fmt: skip
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.2)
    made.save_pretrained(folder)
    words.save_pretrained(folder)
    return EngineSpec(str(folder), context=256, max_new_tokens=8, device="cpu")


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", ["llama", "mistral", "llama2"])
def test_an_adapter_is_trained_saved_and_merged(family: str, tied: bool, tmp_path: Path) -> None:
    spec = build(family, tmp_path / "base", tied=tied)
    trainable = load_trainable(spec, torch.device("cpu"))
    model = add_adapter(trainable.model, SETTINGS.lora, 0)
    names = [name for name, _ in trained_parameters(model)]
    modules = {name.split(".lora_")[0].rpartition(".")[2] for name in names}
    assert modules == set(SETTINGS.lora.targets)
    assert all(".lora_" in name for name in names)
    frozen = {name: value.clone() for name, value in model.state_dict().items() if ".lora_" not in name}
    learner = Learner(model, trainable.turns, examples(), SETTINGS)
    losses = [learner.step(number).loss for number in range(learner.steps)]
    assert losses[-1] < losses[0]
    assert all(torch.equal(model.state_dict()[name], value) for name, value in frozen.items())

    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    save_adapter(model, adapter, {})
    with safe_open(adapter / "adapter_model.safetensors", "pt") as held:
        assert all(".lora_" in name for name in held.keys())  # noqa: SIM118
        assert any("lm_head" in name for name in held.keys())  # noqa: SIM118
    merge_adapter(spec, adapter, merged)
    assert json.loads((merged / "config.json").read_text())["tie_word_embeddings"] is False

    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        trained = model.eval()(ids).logits
        base = AutoModelForCausalLM.from_pretrained(spec.checkpoint)
        before = base(ids).logits.clone()
        loaded = PeftModel.from_pretrained(base, str(adapter)).eval()(ids).logits
        whole = AutoModelForCausalLM.from_pretrained(merged)(ids).logits
    assert torch.allclose(loaded, trained, atol=1e-5)
    assert torch.allclose(whole, trained, atol=1e-4)
    assert not torch.allclose(before, trained, atol=1e-2)

    asked = Request("0", Prompt("Is the colour of item 3 red?"))
    engine = load_engine(replace(spec, adapters={"mine": str(adapter)}))
    (alone,) = load_engine(replace(spec, checkpoint=str(merged))).generate([asked])
    (with_adapter,) = engine.generate([replace(asked, adapter="mine")])
    (without,) = engine.generate([asked])
    assert alone.text == with_adapter.text != without.text


def said_yes(engine: Engine, requests: list[Request]) -> list[float]:
    """How likely each answer is yes."""
    return [answer.probabilities[0] for answer in engine.choose(requests, ("yes", "no"))]


@pytest.mark.vllm
@pytest.mark.timeout(600)
def test_vllm_answers_with_a_trained_adapter_and_with_the_merged_model(tmp_path: Path) -> None:
    spec = EngineSpec("miniature:unim3-base", context=256, max_new_tokens=8, device="cpu")
    trainable = load_trainable(spec, torch.device("cpu"))
    model = add_adapter(trainable.model, SETTINGS.lora, 0)
    learner = Learner(model, trainable.turns, examples(), SETTINGS)
    for number in range(learner.steps):
        learner.step(number)
    save_adapter(model, tmp_path / "adapter", {})
    merge_adapter(spec, tmp_path / "adapter", tmp_path / "merged")
    asked = [Request(str(n), Prompt(f"Is the colour of item {n} red?")) for n in range(6)]
    adapted = [replace(request, adapter="mine") for request in asked]
    here = replace(spec, adapters={"mine": str(tmp_path / "adapter")})
    reference = load_engine(here)
    wanted = [answer.text for answer in reference.generate(adapted)]
    for engine, requests in (
        (load_engine(replace(here, engine="vllm")), adapted),
        (load_engine(replace(spec, engine="vllm", checkpoint=str(tmp_path / "merged"))), asked),
    ):
        try:
            assert [answer.text for answer in engine.generate(requests)] == wanted
            told, plain = (said_yes(engine, given) for given in (requests, asked))
        finally:
            engine.close()
        assert told == pytest.approx(said_yes(reference, adapted), abs=1e-3)
        if requests is adapted:  # the same engine without the adapter
            assert plain == pytest.approx(said_yes(reference, asked), abs=1e-3)
            assert plain != pytest.approx(told, abs=0.05)


def test_memory_is_estimated_from_the_settings_alone(tmp_path: Path) -> None:
    spec = build("llama", tmp_path / "base", tied=False)
    told = estimate(spec, SETTINGS)
    trainable = load_trainable(spec, torch.device("cpu"))
    weights = sum(parameter.numel() for parameter in trainable.model.parameters())
    assert told.weights * 2**30 == pytest.approx(4 * weights)
    adapted = sum(value.numel() for _, value in trained_parameters(add_adapter(trainable.model, SETTINGS.lora, 0)))
    assert told.adapter * 2**30 == pytest.approx(20 * adapted)
    longer = estimate(spec, SETTINGS.model_copy(update={"micro_tokens": 2 * SETTINGS.micro_tokens}))
    assert longer.activations > 1.5 * told.activations
    whole = estimate(spec, SETTINGS.model_copy(update={"gradient_checkpointing": False}))
    assert whole.activations > told.activations
    assert estimate(spec, SETTINGS.model_copy(update={"quantize": "4bit"})).weights < 0.2 * told.weights
