"""Answers in pieces are the answers of `generate`, and calls that were prepared are answered alike."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import pytest

from caslie_ray.engines import Generation, Request
from caslie_ray.engines._text_pieces import TextPieces
from caslie_ray.engines.transformers import TransformersEngine
from caslie_ray.prompts import Prompt
from tests.engines import tiny
from tests.engines.conftest import MakeCheckpoint, tiny_spec


def read(stream: Generator[str, None, Generation]) -> tuple[list[str], Generation]:
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, end.value


@pytest.fixture(scope="module")
def engine(checkpoint: MakeCheckpoint) -> TransformersEngine:
    return TransformersEngine(tiny_spec(checkpoint("idefics3"), max_new_tokens=24))


def asked() -> list[Request]:
    shown = Request("0", Prompt("what is it"), tiny.image())
    return [shown, Request("1", Prompt("a mug")), Request("2", Prompt("a mug " * 2000)), replace(shown, image=b"none")]


def test_pieces_together_are_the_answer(engine: TransformersEngine) -> None:
    for request in asked():
        (expected,) = engine.generate([request])
        pieces, answer = read(engine.stream(request))
        assert answer == expected
        assert "".join(pieces) == expected.text
        assert all(pieces)
        assert len(pieces) > 3 or expected.new_tokens < 8


def test_a_closed_stream_writes_no_more(engine: TransformersEngine) -> None:
    before = engine.stats().new_tokens
    stream = engine.stream(asked()[0])
    next(stream)
    stream.close()
    assert engine.stats().new_tokens == before
    assert engine.generate(asked()[:1])[0].failure is None


def test_prepared_calls_are_answered_alike(engine: TransformersEngine) -> None:
    expected = engine.generate(asked()), engine.choose(asked(), ["yes", "no"])
    first, second, third = asked(), asked(), asked()
    engine.prepare(first, choosing=False)
    engine.prepare(second, choosing=True)
    engine.prepare(third, choosing=True)
    engine.prepare([], choosing=True)
    engine.discard(third)
    assert (engine.generate(first), engine.choose(second, ["yes", "no"])) == expected


def test_characters_of_several_tokens_come_complete() -> None:
    parts = ["a", " ", "\ufffd", "é", " b", "\ufffd"]

    def decode(ids: list[int], *, skip_special_tokens: bool) -> str:
        text = "".join(parts[: len(ids)])
        return text.replace("\ufffdé", "é")

    pieces = TextPieces(decode)
    found = [pieces.next(list(range(count))) for count in range(1, 7)]
    assert found == ["a", "", "", " é", " b", ""]
    assert pieces.next(list(range(6)), last=True) == "\ufffd"
