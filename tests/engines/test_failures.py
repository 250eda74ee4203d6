"""A request that cannot be answered costs itself and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from caslie_ray.engines import Failure, Generation, Request
from caslie_ray.engines.transformers import TransformersEngine
from caslie_ray.errors import EngineError
from caslie_ray.prompts import Prompt, render
from tests.engines import tiny
from tests.engines.conftest import MakeCheckpoint, MakeEngine, tiny_spec

YES_NO = ["yes", "no"]
GOOD = Request("good", Prompt("Is it red?"))
SHOWN = Request("shown", Prompt("Is it red?"), tiny.image())


def reason(engine: TransformersEngine, good: Request, bad: Request) -> str:
    """Why `bad` failed, with a good neighbour on each side that must not notice."""
    answers = engine.generate([good, bad, good])
    expected = engine.generate([good])[0]
    assert expected.failure is None
    assert [answers[0], answers[2]] == [expected, expected]
    assert engine.choose([good, bad], YES_NO)[1].failure == answers[1].failure
    failure = answers[1].failure
    assert isinstance(failure, Failure)
    assert not failure.retryable
    assert answers[1] == Generation(bad.key, "", answers[1].prompt_tokens, 0, answers[1].cut, failure)
    return failure.reason


@pytest.mark.parametrize("data", [b"", b"no image", tiny.image(400, 300)[:200], b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_bytes_that_are_no_image(engine: MakeEngine, data: bytes) -> None:
    assert "the image cannot be read" in reason(engine("llava"), SHOWN, Request("bad", Prompt("What?"), data))


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_an_empty_prompt(engine: MakeEngine, text: str) -> None:
    assert reason(engine("llama"), GOOD, Request("bad", Prompt(text))) == "the prompt is empty"
    assert reason(engine("mllama"), SHOWN, Request("bad", Prompt(text), tiny.image())) == "the prompt is empty"


def test_an_image_for_a_text_checkpoint(engine: MakeEngine) -> None:
    assert reason(engine("llama"), GOOD, SHOWN) == "the checkpoint takes no images"


def test_text_for_a_captioner(engine: MakeEngine) -> None:
    assert reason(engine("blip2"), SHOWN, GOOD) == "the checkpoint answers only with an image"


def test_a_captioner_needs_no_prompt(engine: MakeEngine) -> None:
    assert engine("blip2").generate([Request("a", Prompt(""), tiny.image())])[0].failure is None


def test_text_that_is_no_unicode(engine: MakeEngine) -> None:
    said = reason(engine("llama"), GOOD, Request("bad", Prompt("half a pair: \ud800")))
    assert "the request could not be prepared" in said


def test_a_prompt_that_cannot_be_cut_is_reported_with_its_length(engine: MakeEngine) -> None:
    answer = engine("llama").generate([Request("long", Prompt("word " * 2000))])[0]
    assert answer.failure is not None
    assert (
        "tokens long with every user field and caption left out, and the context of 512 has room for 504"
        in answer.failure.reason
    )
    assert not answer.failure.retryable


@pytest.mark.parametrize("name", ["llama", "phi3", "mllama"])
def test_a_long_field_is_cut_and_flagged(engine: MakeEngine, name: str) -> None:
    prompt = render("Is it {{colour}}? Read: {{review}} Only output yes or no.", colour="red", review="so nice " * 400)
    answer = engine(name).generate([Request("a", prompt), GOOD])
    assert (answer[0].failure, answer[0].cut, answer[1].cut) == (None, True, False)
    assert 495 <= answer[0].prompt_tokens <= 504  # of 512, 8 are the answer's
    choice = engine(name).choose([Request("a", prompt)], YES_NO)[0]
    assert choice.cut
    assert 503 <= choice.prompt_tokens <= 511


@pytest.mark.parametrize("name", tiny.IMAGE)
def test_a_cut_prompt_keeps_the_tokens_of_its_image(engine: MakeEngine, name: str) -> None:
    picture = tiny.image(100, 90)
    prompt = render("Is it {{colour}}? Read: {{review}} Say it.", colour="red", review="so nice " * 400)
    bare = engine(name).generate([Request("a", render(prompt.text[: prompt.text.index("so")] + "Say it."), picture)])
    answer = engine(name).generate([Request("a", prompt, picture)])[0]
    assert (answer.failure, answer.cut) == (None, True)
    assert bare[0].failure is None
    assert 495 <= answer.prompt_tokens <= 504


def test_an_image_larger_than_the_context(checkpoint: MakeCheckpoint) -> None:
    engine = TransformersEngine(tiny_spec(checkpoint("llava_next"), context=26))
    answer = engine.generate([Request("a", Prompt("x"), tiny.image(56, 56))])[0]
    assert answer.failure is not None
    assert "the image takes" in answer.failure.reason
    assert "context of 26 has room for 18" in answer.failure.reason


@pytest.mark.parametrize("word", ["word ", "x", "很好 "])
def test_a_review_of_a_million_characters_takes_seconds(engine: MakeEngine, word: str) -> None:
    prompt = render("Does it help: {{review}}? Only output yes or no.", review=word * (10**6 // len(word)))
    started = time.perf_counter()
    choice = engine("mistral").choose([Request("a", prompt)], YES_NO)[0]
    shown = engine("idefics3").generate([Request("a", prompt, tiny.image())])[0]
    assert time.perf_counter() - started < 20
    assert (choice.failure, choice.cut) == (None, True)
    assert (shown.failure, shown.cut) == (None, True)


def _wrap(engine: TransformersEngine, before: Callable[[dict[str, Any]], None]) -> None:
    """Let `before` look at what goes into the model, and raise."""
    model = engine._open().model
    forward = model.forward

    def watched(*args: Any, **inputs: Any) -> Any:
        before(inputs)
        return forward(*args, **inputs)

    model.forward = watched


def _ask(count: int) -> list[Request]:
    return [Request(str(n), Prompt("Is it red? " * (n + 1))) for n in range(count)]


def test_out_of_memory_makes_smaller_batches(checkpoint: MakeCheckpoint) -> None:
    engine = TransformersEngine(tiny_spec(checkpoint("llama"), batch_size=8))
    asked = _ask(8)
    expected = engine.choose(asked, YES_NO)
    sizes: list[int] = []

    def small(inputs: dict[str, Any]) -> None:
        sizes.append(len(inputs["input_ids"]))
        if len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    _wrap(engine, small)
    for got, want in zip(engine.choose(asked, YES_NO), expected, strict=True):
        assert got.failure is None
        assert got.probabilities == pytest.approx(want.probabilities, abs=1e-5)
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    sizes.clear()
    engine.choose(asked, YES_NO)
    assert max(sizes) < 8  # it has learned


def test_smaller_batches_grow_again_when_memory_is_back(checkpoint: MakeCheckpoint) -> None:
    engine = TransformersEngine(tiny_spec(checkpoint("llama"), batch_size=8))
    asked = _ask(8)
    sizes: list[int] = []
    short = True

    def watch(inputs: dict[str, Any]) -> None:
        sizes.append(len(inputs["input_ids"]))
        if short and len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    _wrap(engine, watch)
    engine.choose(asked, YES_NO)
    short = False
    sizes.clear()
    engine.choose(asked, YES_NO)
    assert max(sizes) < 8
    for _ in range(60):
        sizes.clear()
        engine.choose(asked, YES_NO)
    assert sizes == [8]


def test_out_of_memory_limits_the_images_of_short_prompts_too(checkpoint: MakeCheckpoint) -> None:
    engine = TransformersEngine(tiny_spec(checkpoint("mllama"), batch_size=8))
    sizes: list[int] = []
    short = True

    def watch(inputs: dict[str, Any]) -> None:
        if inputs.get("pixel_values") is not None:
            sizes.append(len(inputs["pixel_values"]))
            if short and sizes[-1] > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")

    _wrap(engine, watch)

    def sizes_of(words: int) -> list[int]:
        sizes.clear()
        asked = [Request(str(n), Prompt("red " * words), tiny.image()) for n in range(8)]
        assert all(answer.failure is None for answer in engine.choose(asked, YES_NO))
        return list(sizes)

    assert sizes_of(100) == [8, 4, 4]
    assert sizes_of(1) == [4, 4]  # far below the limit of tokens
    short = False
    for _ in range(40):
        last = sizes_of(1)
    assert last == [8]


def test_out_of_memory_in_an_answer_leaves_votes_their_batches(checkpoint: MakeCheckpoint) -> None:
    engine = TransformersEngine(tiny_spec(checkpoint("llama"), batch_size=8))
    asked = _ask(8)
    sizes: list[int] = []
    writing = True

    def watch(inputs: dict[str, Any]) -> None:
        sizes.append(len(inputs["input_ids"]))
        if writing and len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    _wrap(engine, watch)
    assert all(answer.failure is None for answer in engine.generate(asked))
    writing = False
    sizes.clear()
    engine.choose(asked, YES_NO)
    assert sizes == [8]


def test_out_of_memory_alone_may_be_tried_again(checkpoint: MakeCheckpoint) -> None:
    engine = TransformersEngine(tiny_spec(checkpoint("llama")))

    def never(inputs: dict[str, Any]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    _wrap(engine, never)
    for answer in engine.generate(_ask(3)):
        assert answer.failure is not None
        assert answer.failure.retryable
        assert answer.prompt_tokens > 0


def test_a_row_that_makes_the_model_fail_is_found(checkpoint: MakeCheckpoint) -> None:
    engine = TransformersEngine(tiny_spec(checkpoint("llama"), batch_size=8))
    asked = _ask(7)
    expected = engine.generate(asked)
    poison = expected[4].prompt_tokens

    def picky(inputs: dict[str, Any]) -> None:
        if inputs["input_ids"].shape[1] > 1 and poison in inputs["attention_mask"].sum(-1).tolist():
            raise ZeroDivisionError("poison")

    _wrap(engine, picky)
    answers = engine.generate(asked)
    assert answers[4].failure == Failure("the model failed on this request: ZeroDivisionError: poison", retryable=False)
    assert answers[:4] + answers[5:] == expected[:4] + expected[5:]


def test_numbers_that_are_not_finite_are_no_probabilities(checkpoint: MakeCheckpoint) -> None:
    engine = TransformersEngine(tiny_spec(checkpoint("llama")))
    with torch.no_grad():
        engine._open().model.lm_head.weight.fill_(float("nan"))
    answer = engine.choose([GOOD], YES_NO)[0]
    assert answer.failure is not None
    assert "not finite" in answer.failure.reason
    assert answer.probabilities == ()


def test_a_closed_engine_raises_an_error(checkpoint: MakeCheckpoint) -> None:
    engine = TransformersEngine(tiny_spec(checkpoint("llama")))
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="is closed"):
        engine.generate([GOOD])
    with pytest.raises(EngineError, match="is closed"):
        engine.choose([GOOD], YES_NO)


def test_choices_without_a_token_of_their_own_are_an_error(engine: MakeEngine) -> None:
    with pytest.raises(EngineError, match="no first token of its own"):
        engine("llama").choose([GOOD], ["also buy", "also view"])
