"""The engine against transformers used by hand, one request at a time, for every family of the lineup."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from caslie_ray.engines import EngineStats, Request, load_engine
from caslie_ray.engines._choice_tokens import first_token_ids
from caslie_ray.engines.transformers import TransformersEngine
from caslie_ray.prompts import Prompt, render
from tests.engines import tiny
from tests.engines.conftest import MakeCheckpoint, MakeEngine, tiny_spec

SIZES = [(40, 30), (30, 90), (100, 20), (28, 28), (7, 200), (56, 56)]
COLOURS = ["red", "blue", "green", "black", "yellow", "purple"]
YES_NO = ["yes", "no"]


def requests(*, images: bool) -> list[Request]:
    """Requests of very different lengths, with images of very different shapes."""
    return [
        Request(
            key=f"key-{number}",
            prompt=render("Is it a {{title}}? Only output yes or no.", title="red mug " * (3 * number + 1)),
            image=tiny.image(*SIZES[number], COLOURS[number]) if images else None,
        )
        for number in range(len(SIZES))
    ]


CASES = [(name, False) for name in (*tiny.TEXT, "mllama", "llava", "llava_next", "idefics3")] + [
    (name, True) for name in tiny.IMAGE
]


def by_hand(folder: Path, request: Request) -> tuple[Any, Mapping[str, torch.Tensor], Any]:
    """The model, its inputs and its tokenizer, as the documentation of transformers has them."""
    name = folder.name
    if name in tiny.TEXT:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        turn = [{"role": "user", "content": request.prompt.text}]
        inputs: Any = tokenizer.apply_chat_template(
            turn, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        return AutoModelForCausalLM.from_pretrained(folder), inputs, tokenizer
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    picture = Image.open(io.BytesIO(request.image)) if request.image else None
    if name == "blip2":
        return (
            model,
            processor(images=picture, text=request.prompt.text, return_tensors="pt"),
            processor.tokenizer,
        )
    content: list[dict[str, Any]] = [{"type": "text", "text": request.prompt.text}]
    if picture is not None:
        content.insert(0, {"type": "image", "image": picture})
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        processor_kwargs={"return_tensors": "pt"},
    )
    return model, inputs, processor.tokenizer


@pytest.mark.parametrize(("name", "images"), CASES)
def test_a_mixed_batch_answers_as_each_request_alone(engine: MakeEngine, name: str, images: bool) -> None:
    asked = requests(images=images)
    together = engine(name).generate(asked)
    assert together == [engine(name).generate([request])[0] for request in asked]
    assert [answer.key for answer in together] == [request.key for request in asked]
    assert len({answer.text for answer in together}) > 1  # the prompt matters

    chosen = engine(name).choose(asked, YES_NO)
    for request, choice in zip(asked, chosen, strict=True):
        alone = engine(name).choose([request], YES_NO)[0]
        assert choice.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert (choice.key, choice.prompt_tokens, choice.failure) == (request.key, alone.prompt_tokens, None)
        assert sum(choice.probabilities) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("name", "images"), CASES)
def test_the_answers_are_those_of_transformers_by_hand(
    engine: MakeEngine, checkpoint: MakeCheckpoint, name: str, images: bool
) -> None:
    request = requests(images=images)[1]
    model, inputs, tokenizer = by_hand(checkpoint(name), request)
    length = inputs["input_ids"].shape[1]
    written = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, length:]
    answer = engine(name).generate([request])[0]
    assert answer.text == tokenizer.decode(written, skip_special_tokens=True).strip()
    assert answer.prompt_tokens == length
    assert 1 <= answer.new_tokens <= 8

    with torch.inference_mode():
        share = model(**inputs).logits[0, -1].softmax(-1)
    spellings = [["yes", " yes", "Yes", " Yes", "YES", " YES"], ["no", " no", "No", " No", "NO", " NO"]]
    ids = [{tokenizer.encode(word, add_special_tokens=False)[0] for word in words} for words in spellings]
    sums = [share[sorted(own - other)].sum().item() for own, other in ((ids[0], ids[1]), (ids[1], ids[0]))]
    choice = engine(name).choose([request], YES_NO)[0]
    assert choice.probabilities == pytest.approx([sums[0] / sum(sums), sums[1] / sum(sums)], abs=1e-5)


@pytest.mark.parametrize("name", tiny.IMAGE)
def test_the_image_decides(engine: MakeEngine, name: str) -> None:
    prompt = Prompt("Is it red? Only output yes or no.")
    shown = [Request(colour, prompt, tiny.image(40, 30, colour)) for colour in ("red", "blue")]
    red, blue = engine(name).choose(shown, YES_NO)
    assert abs(red.probabilities[0] - blue.probabilities[0]) > 1e-4


def test_images_and_none_in_one_call_keep_their_order(engine: MakeEngine) -> None:
    mixed = [a if number % 2 else b for number, (a, b) in enumerate(_both())]
    answers = engine("mllama").generate(mixed)
    assert answers == [engine("mllama").generate([request])[0] for request in mixed]
    assert [answer.key for answer in answers] == [request.key for request in mixed]


def _both() -> list[tuple[Request, Request]]:
    return list(zip(requests(images=True), requests(images=False), strict=True))


def test_images_are_prepared_in_windows(checkpoint: MakeCheckpoint, engine: MakeEngine) -> None:
    asked = requests(images=True) * 2
    asked[5] = Request("bad", asked[5].prompt, b"no image")
    small = TransformersEngine(tiny_spec(checkpoint("llava"), batch_size=1))  # windows of 4 requests
    assert small.generate(asked) == engine("llava").generate(asked)


def test_a_jpeg_is_an_image_too(engine: MakeEngine) -> None:
    request = Request("a", Prompt("What is it?"), tiny.image(kind="JPEG"))
    assert engine("llava").generate([request])[0].failure is None


def test_no_requests_give_no_answers(engine: MakeEngine) -> None:
    assert engine("llama").generate([]) == []
    assert engine("llama").choose([], YES_NO) == []


def test_an_answer_ends_at_the_end_token(checkpoint: MakeCheckpoint) -> None:
    engine = TransformersEngine(tiny_spec(checkpoint("llama"), max_new_tokens=200))
    answers = engine.generate(requests(images=False))
    ended = [answer for answer in answers if answer.new_tokens < 200]
    assert ended  # by chance each of 200 random tokens may end the answer; the seed is fixed
    assert len({answer.new_tokens for answer in answers}) > 1
    assert all("</s>" not in answer.text and "<pad>" not in answer.text for answer in answers)
    assert [answer.truncated for answer in answers] == [answer not in ended for answer in answers]
    assert {answer.truncated for answer in answers} == {True, False}


def test_a_repetition_penalty_ignores_padding(checkpoint: MakeCheckpoint) -> None:
    engine = TransformersEngine(tiny_spec(checkpoint("llama"), generation={"repetition_penalty": 1.8}))
    asked = requests(images=False)
    together = engine.generate(asked)
    assert together == [engine.generate([request])[0] for request in asked]
    plain = TransformersEngine(tiny_spec(checkpoint("llama"))).generate(asked)
    assert [answer.text for answer in together] != [answer.text for answer in plain]


def test_the_sampling_settings_of_the_checkpoint_are_ignored(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    copy = _copy(checkpoint("llama"), tmp_path / "copy")
    sampling = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 3.0}
    (copy / "generation_config.json").write_text(json.dumps(sampling))
    asked = requests(images=False)
    plain = TransformersEngine(tiny_spec(checkpoint("llama"))).generate(asked)
    assert TransformersEngine(tiny_spec(copy)).generate(asked) == plain


def test_a_long_row_does_not_change_the_positions_of_others(engine: MakeEngine) -> None:
    # Beyond 128 tokens tiny Phi-3 turns all positions of a batch otherwise, Phi-3.5-mini beyond 4,096.
    short = [Request(str(n), Prompt("Is it red? " * n)) for n in (1, 3, 4)]
    long = Request("long", Prompt("Is it red? " * 40))
    together = engine("phi3").choose([*short, long], YES_NO)
    alone = [engine("phi3").choose([request], YES_NO)[0] for request in [*short, long]]
    assert together[-1].prompt_tokens > 128
    for a, b in zip(together, alone, strict=True):
        assert a.probabilities == pytest.approx(b.probabilities, abs=1e-5)
    assert engine("phi3").generate([*short, long])[0] == engine("phi3").generate(short[:1])[0]


def test_choices_may_be_any_words(engine: MakeEngine) -> None:
    answer = engine("llama").choose([Request("a", Prompt("Which?"))], ["category", "image", "product"])[0]
    assert len(answer.probabilities) == 3
    assert sum(answer.probabilities) == pytest.approx(1.0, abs=1e-5)


def test_half_precision_runs(checkpoint: MakeCheckpoint) -> None:
    for name in ("mistral", "idefics3"):
        engine = TransformersEngine(tiny_spec(checkpoint(name), dtype="bfloat16"))
        asked = requests(images=name == "idefics3")
        assert all(answer.failure is None for answer in engine.generate(asked))
        assert all(answer.failure is None for answer in engine.choose(asked, YES_NO))


def test_stats_count_what_was_done(checkpoint: MakeCheckpoint) -> None:
    engine = load_engine(tiny_spec(checkpoint("mistral")))
    assert engine.stats().calls == 0
    assert engine.stats().load_seconds > 0
    asked = requests(images=False)
    written = engine.generate(asked)
    chosen = engine.choose([*asked, Request("empty", Prompt(""))], YES_NO)
    stats = engine.stats()
    assert isinstance(stats, EngineStats)
    assert (stats.calls, stats.failures) == (2 * len(asked) + 1, 1)
    read = [answer.prompt_tokens for answer in written] + [answer.prompt_tokens for answer in chosen]
    assert stats.prompt_tokens == sum(read)
    assert stats.new_tokens == sum(answer.new_tokens for answer in written)
    assert stats.seconds > 0


def _copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_an_answer_may_have_a_smaller_limit(checkpoint: MakeCheckpoint) -> None:
    engine = TransformersEngine(tiny_spec(checkpoint("llama"), max_new_tokens=12, generation={"min_new_tokens": 12}))
    asked = [
        replace(one, max_new_tokens=limit) for one, limit in zip(requests(images=False), (3, None, 50), strict=False)
    ]
    expected = engine.generate([replace(one, max_new_tokens=None) for one in asked])
    answers = engine.generate(asked)
    assert [answer.new_tokens for answer in answers] == [3, 12, 12]
    assert answers[1:] == expected[1:]
    assert answers[0].truncated
    assert expected[0].text.startswith(answers[0].text)


def test_an_answer_may_begin_with_a_given_text(checkpoint: MakeCheckpoint, engine: MakeEngine) -> None:
    """Choices after the beginning of an answer are read from the distribution of the token that follows it."""
    request = Request("a", Prompt("Which?"), answer_prefix="the red")
    ours = engine("llama").choose([request], ["category", "image"])[0]
    model, _, tokenizer = by_hand(checkpoint("llama"), request)
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Which?"}], add_generation_prompt=True, tokenize=False
    )
    ids = tokenizer(rendered + "the red", add_special_tokens=False, return_tensors="pt").input_ids
    assert ours.prompt_tokens == ids.shape[1]
    logits = model(ids).logits[0, -1]
    firsts = first_token_ids(lambda text: tokenizer.encode(text, add_special_tokens=False), ["category", "image"], None)
    sums = torch.stack([logits[list(own)].logsumexp(-1) for own in firsts])
    assert ours.probabilities == pytest.approx(sums.softmax(-1).tolist(), abs=1e-5)
    shown = engine("idefics3").choose([replace(request, image=tiny.image())], ["category", "image"])[0]
    assert shown.failure is not None
    assert "cannot have an answer_prefix" in shown.failure.reason
