"""The rule by which a prompt that is too long is cut."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslie_ray.engines.cutting import PromptTooLong, cut_prompt
from caslie_ray.prompts import Prompt, render

LONGEST = 12


def encode(text: str) -> list[int]:
    """One token for each piece of a word of up to four letters, and for each space and mark."""
    return [0] * len(re.findall(r"\w{1,4}|\W", text))


def cut(prompt: Prompt, budget: int) -> tuple[str, bool]:
    done = cut_prompt(prompt, budget, encode, LONGEST)
    assert len(done.ids) == len(encode(done.text)) <= budget
    return done.text, done.cut


def test_a_prompt_that_fits_stays() -> None:
    prompt = render("Q {{a}}?", a="one two")
    assert cut(prompt, len(encode(prompt.text))) == ("Q one two?", False)


TWO = render("{{short}} | {{long}} | end", short="aa bb cc", long="one two three four five")


@pytest.mark.parametrize(
    "expected",
    ["aa bb cc | one two three four | end", "aa bb cc | one two three | end", "aa bb cc | one | end"],
)
def test_words_go_from_the_end_of_the_longest_field(expected: str) -> None:
    assert cut(TWO, len(encode(expected))) == (expected, True)


@pytest.mark.parametrize("expected", ["aa bb cc |  | end", "aa bb |  | end", "aa |  | end", " |  | end"])
def test_then_from_the_next_longest(expected: str) -> None:
    assert cut(TWO, len(encode(expected))) == (expected, True)


def test_of_equally_long_fields_the_first_is_cut() -> None:
    assert cut(render("{{a}}/{{b}}", a="one two", b="six ten"), 5) == ("one/six ten", True)


def test_only_fields_are_cut() -> None:
    template = "instruction words {{title}} caption words that are much longer than the title"
    with pytest.raises(PromptTooLong) as caught:
        cut(render(template, title="a b"), 10)
    assert caught.value.budget == 10
    assert caught.value.tokens == len(encode(template.replace("{{title}}", "")))
    assert str(caught.value.tokens) in str(caught.value)


def test_a_prompt_without_fields_is_refused() -> None:
    with pytest.raises(PromptTooLong):
        cut(Prompt("some words"), 2)


def test_a_word_that_alone_is_too_long_loses_letters() -> None:
    text, was_cut = cut(render("Q: {{a}}.", a="x" * 1000), 14)
    assert was_cut
    assert text == "Q: " + "x" * 40 + "."


def test_a_field_of_white_space_is_dropped() -> None:
    assert cut(render("Q: {{a}}.", a=" " * 10**6), 5) == ("Q: .", True)


@pytest.mark.parametrize("word", ["word ", "x", "很好 ", "1", ". "])
def test_a_field_of_a_million_characters_is_cheap(word: str) -> None:
    seen = 0

    def counted(text: str) -> list[int]:
        nonlocal seen
        seen += len(text)
        return encode(text)

    prompt = render("Q: {{a}}. And {{b}}?", a=word * (10**6 // len(word)), b="six words that are the user's")
    started = time.perf_counter()
    done = cut_prompt(prompt, 1000, counted, LONGEST)
    assert time.perf_counter() - started < 5
    assert done.cut
    assert 995 <= len(done.ids) <= 1000
    assert done.text.endswith(". And six words that are the user's?")
    assert seen < 300_000


@settings(max_examples=200, deadline=None)
@given(
    fields=st.lists(st.text("ab ,.", max_size=60), min_size=1, max_size=4),
    literals=st.lists(st.text("XY", min_size=1, max_size=6), min_size=5, max_size=5),
    budget=st.integers(1, 80),
)
def test_what_is_kept_is_the_start_of_each_field(fields: list[str], literals: list[str], budget: int) -> None:
    text, spans = literals[0], []
    for field, literal in zip(fields, literals[1:], strict=False):
        spans.append((len(text), len(text) + len(field)))
        text += field + literal
    prompt = Prompt(text, tuple(spans))
    if len(encode("".join(literals[: len(fields) + 1]))) > budget:
        with pytest.raises(PromptTooLong):
            cut(prompt, budget)
        return
    kept, was_cut = cut(prompt, budget)
    assert was_cut == (len(encode(text)) > budget)
    if not was_cut:
        assert kept == text
        return
    pattern = re.escape(literals[0]) + "".join(
        f"([ab ,.]*){re.escape(literal)}" for _, literal in zip(fields, literals[1:], strict=False)
    )
    match = re.fullmatch(pattern, kept)
    assert match
    whole = [n for n, field in enumerate(fields) if match[n + 1] == field]
    touched = [n for n in range(len(fields)) if n not in whole]
    # Longest first: a field is touched only where every longer one is, and only one of them is not empty.
    assert all(len(fields[n]) <= min((len(fields[t]) for t in touched), default=99) for n in whole)
    assert sum(match[n + 1] != "" for n in touched) <= 1
    assert all(field.startswith(match[n + 1]) for n, field in enumerate(fields))
