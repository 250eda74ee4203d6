"""The shipped checkpoints, through plain transformers."""

from random import Random

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Idefics3ForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from caslie_ray.miniature._training.captioner import Example, captions_by, examples
from caslie_ray.miniature._training.questions import questions
from caslie_ray.miniature._training.voters import VOTERS, balanced_accuracy
from caslie_ray.miniature.catalogue import CATEGORIES
from caslie_ray.miniature.train import CHECKPOINTS
from caslie_ray.miniature.truth import named_in

_ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "phi": "Phi3ForCausalLM",
    "qwen": "Qwen2ForCausalLM",
}


def test_the_checkpoints_are_at_most_20_mb_altogether() -> None:
    files = [path for path in CHECKPOINTS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} >= {"captioner", "unim3-base", *(f"voter-{name}" for name in VOTERS)}
    assert not [path for path in files if path.suffix == ".py"]
    assert sum(path.stat().st_size for path in files) <= 20e6


@pytest.fixture(scope="module")
def written() -> list[tuple[Example, str]]:
    model = AutoModelForImageTextToText.from_pretrained(CHECKPOINTS / "captioner", dtype=torch.float32)
    assert isinstance(model, Idefics3ForConditionalGeneration)
    processor = AutoProcessor.from_pretrained(CHECKPOINTS / "captioner")
    fresh = examples(Random(2025), 120, combinations="all", free=0.0)
    return [
        (example, text)
        for start in range(0, len(fresh), 30)
        for example, text in zip(
            fresh[start : start + 30], captions_by(model, processor, fresh[start : start + 30]), strict=True
        )
    ]


def test_captions_name_the_category_and_what_is_asked(written: list[tuple[Example, str]]) -> None:
    shown = [(e, named_in(text)) for e, text in written if e.view.picture.shown is not None]
    assert len(shown) > 60
    looks = [(e.view.picture.shown, e.view.asks, named) for e, named in shown]
    category = [look is not None and named.get("category") == look.category for look, _, named in looks]
    assert sum(category) / len(category) > 0.95
    asked = [
        look is not None and named.get(name, "") == look.value(name)  # a product may have no brand mark
        for look, asks, named in looks
        for name in asks
        if name in ("category", "colour", "pattern", "size", "brand")
    ]
    assert sum(asked) / len(asked) > 0.95


def test_placeholders_are_not_described_as_products(written: list[tuple[Example, str]]) -> None:
    hollow = [text for e, text in written if e.view.picture.kind == "placeholder"]
    assert len(hollow) >= 8
    described = [text for text in hollow if set(named_in(text).values()) & set(CATEGORIES)]
    assert len(described) <= 0.1 * len(hollow)


def test_the_captioner_config_has_the_same_head_setting_at_both_levels() -> None:
    config = AutoModelForImageTextToText.from_pretrained(CHECKPOINTS / "captioner").config
    assert config.tie_word_embeddings is False
    assert config.text_config.tie_word_embeddings is False
    assert config.text_config.max_position_embeddings >= 1024


def _load(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    model = AutoModelForCausalLM.from_pretrained(CHECKPOINTS / name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINTS / name)
    assert isinstance(model, PreTrainedModel)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return model, tokenizer


@pytest.mark.parametrize("name", VOTERS)
def test_each_voter_judges_fresh_captions_far_better_than_chance(name: str) -> None:
    model, tokenizer = _load(f"voter-{name}")
    recipe = VOTERS[name]
    assert type(model).__name__ == _ARCHITECTURES[recipe.family]
    fresh = questions(Random(2026), 300, {}, combinations="all")
    assert balanced_accuracy(model, tokenizer, recipe.style, fresh) > 0.75


@pytest.mark.parametrize("name", [*(f"voter-{name}" for name in VOTERS), "unim3-base"])
def test_a_language_model_has_its_end_tokens_and_chat_template(name: str) -> None:
    model, tokenizer = _load(name)
    assert model.config.max_position_embeddings >= 1024
    assert model.generation_config is not None
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == model.config.eos_token_id
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id == model.config.pad_token_id
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.config.vocab_size >= len(tokenizer)
    turn = [{"role": "user", "content": "one two"}]
    chat = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
    assert isinstance(chat, str)
    assert chat.count(tokenizer.bos_token) == 1
    ids = tokenizer(chat, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == chat
    firsts = {word: tokenizer.encode(word, add_special_tokens=False)[0] for word in ("yes", "no", " yes", " no")}
    assert len(set(firsts.values())) == 4


def test_voters_differ() -> None:
    vocabularies = {name: frozenset(_load(f"voter-{name}")[1].get_vocab()) for name in VOTERS}
    assert len(set(vocabularies.values())) == len(VOTERS)
