"""The rule by which a prompt that is too long is cut."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslie_ray.engines.cutting import Cut, Fit, PromptTooLong, cut_prompt, fit_of
from caslie_ray.prompts import Prompt, join, render

LONGEST = 12


def encode(text: str) -> list[int]:
    """One token for each piece of a word of up to four letters, and for each space and mark."""
    return [0] * len(re.findall(r"\w{1,4}|\W", text))


def cut(prompt: Prompt, budget: int) -> tuple[str, bool]:
    done = cut_prompt(prompt, budget, encode, LONGEST)
    assert len(done.ids) == len(encode(done.text)) <= budget
    return done.text, done.cut


def test_a_prompt_that_fits_is_unchanged() -> None:
    prompt = render("Q {{a}}?", a="one two")
    assert cut(prompt, len(encode(prompt.text))) == ("Q one two?", False)


TWO = render("{{short}} | {{long}} | end", short="aa bb cc", long="one two three four five")


@pytest.mark.parametrize(
    "expected",
    ["aa bb cc | one two three four | end", "aa bb cc | one two three | end", "aa bb cc | one | end"],
)
def test_words_are_removed_from_the_end_of_the_longest_field(expected: str) -> None:
    assert cut(TWO, len(encode(expected))) == (expected, True)


@pytest.mark.parametrize("expected", ["aa bb cc |  | end", "aa bb |  | end", "aa |  | end", " |  | end"])
def test_words_are_then_cut_from_the_next_longest_field(expected: str) -> None:
    assert cut(TWO, len(encode(expected))) == (expected, True)


def test_the_first_of_equally_long_fields_is_cut() -> None:
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


def captioned(*captions: str, field: str = "Tent") -> Prompt:
    """A prompt of a title, then a line for each caption, then the options."""
    lines = [render("1st: {{title}}", title=field)]
    lines += [Prompt(f"image: {caption}", captions=((7, 7 + len(caption)),)) for caption in captions]
    return join([*lines, Prompt("options: A B")], "\n")


def cut_of(prompt: Prompt, budget: int) -> Cut:
    done = cut_prompt(prompt, budget, encode, LONGEST)
    assert len(done.ids) == len(encode(done.text)) <= budget
    return done


@pytest.mark.parametrize(
    "captions",
    [
        ("a red tent", "a blue pot of steel"),
        ("a red tent", "a blue pot of"),
        ("a red tent", "a blue pot"),
        ("a red", "a blue"),
        ("a", "a"),
        ("", ""),
    ],
)
def test_captions_are_cut_to_equal_lengths_and_nothing_else_is_cut(captions: tuple[str, str]) -> None:
    whole = captioned("a red tent", "a blue pot of steel and glass")
    expected = captioned(*captions).text
    done = cut_of(whole, len(encode(expected)))
    assert (done.text, done.cut, done.captions_cut) == (expected, False, True)


def test_a_field_loses_words_before_a_caption_and_keeps_its_beginning() -> None:
    words = [f"w{number}" for number in range(60)]
    prompt = captioned("a red tent of canvas", field=" ".join(words))
    kept = captioned("a red tent of canvas", field=" ".join(words[:40]))
    done = cut_of(prompt, len(encode(kept.text)))
    assert (done.text, done.cut, done.captions_cut) == (kept.text, True, False)
    kept = captioned("a red tent", field=" ".join(words[:32]))
    done = cut_of(prompt, len(encode(kept.text)))
    assert (done.text, done.cut, done.captions_cut) == (kept.text, True, True)
    # Without captions to shorten, the field alone has to give way.
    kept = captioned("", field=" ".join(words[:9]))
    done = cut_of(prompt, len(encode(kept.text)))
    assert (done.text, done.cut, done.captions_cut) == (kept.text, True, True)
    with pytest.raises(PromptTooLong, match="with every user field and caption left out"):
        cut_of(prompt, len(encode(captioned("", field="").text)) - 1)


def test_the_beginning_of_a_field_ends_with_a_complete_word() -> None:
    prompt = captioned("a b c d e f g h", field=f"{'x' * 200} {'y' * 200} z")
    done = cut_of(prompt, len(encode(captioned("a b", field="x" * 200).text)))
    assert done.text == captioned("a b", field="x" * 200).text
    single = cut_of(captioned("a b c d e f g h", field="x" * 10**6), 90)
    assert "x" * 256 in single.text
    assert "x" * 257 not in single.text


def test_captions_without_spaces_lose_characters() -> None:
    expected = captioned("红色的帐篷红色的", "蓝色的锅蓝色的锅").text
    done = cut_of(captioned("红色的帐篷" * 9, "蓝色的锅" * 3), len(encode(expected)))
    assert (done.text, done.captions_cut) == (expected, True)


def test_captions_of_a_million_characters_are_cheap() -> None:
    seen = 0

    def counted(text: str) -> list[int]:
        nonlocal seen
        seen += len(text)
        return encode(text)

    prompt = captioned("word " * 100_000, "word " * 100_000, field="word " * 100_000)
    started = time.perf_counter()
    done = cut_prompt(prompt, 1000, counted, LONGEST)
    assert time.perf_counter() - started < 5
    assert 990 <= len(done.ids) <= 1000
    assert done.captions_cut
    assert seen < 300_000


PARTS = st.lists(
    st.tuples(st.sampled_from("FCX"), st.text("ab é,.", max_size=40), st.text("XY\n", min_size=1, max_size=4)),
    min_size=1,
    max_size=6,
)


def marked(parts: list[tuple[str, str, str]]) -> Prompt:
    """A prompt of fields (F), captions (C) and fixed text (X), each followed by fixed text."""
    text = ""
    spans: dict[str, list[tuple[int, int]]] = {"F": [], "C": [], "X": []}
    for kind, value, literal in parts:
        spans[kind].append((len(text), len(text) + len(value)))
        text += value + literal
    return Prompt(text, tuple(spans["F"]), tuple(spans["C"]))


@settings(max_examples=300, deadline=None)
@given(parts=PARTS, budget=st.integers(1, 120))
def test_only_fields_and_captions_are_cut_from_their_ends(parts: list[tuple[str, str, str]], budget: int) -> None:
    prompt = marked(parts)
    fixed = marked([(kind, value if kind == "X" else "", literal) for kind, value, literal in parts])
    outcome = fit_of(prompt, budget, encode, LONGEST)
    if len(encode(fixed.text)) > budget:
        assert outcome == Fit.TOO_LONG
        with pytest.raises(PromptTooLong):
            cut_of(prompt, budget)
        return
    done = cut_of(prompt, budget)
    pattern = "".join(
        (re.escape(value) if kind == "X" else "([ab é,.]*)") + re.escape(literal) for kind, value, literal in parts
    )
    match = re.fullmatch(pattern, done.text)
    assert match
    kept = list(zip([(kind, value) for kind, value, _ in parts if kind != "X"], match.groups(), strict=True))
    assert all(value.startswith(found) for (_, value), found in kept)
    assert done.cut == any(kind == "F" and found != value for (kind, value), found in kept)
    assert done.captions_cut == any(kind == "C" and found != value for (kind, value), found in kept)
    expected = Fit.CAPTIONS_CUT if done.captions_cut else Fit.FIELDS_CUT if done.cut else Fit.WHOLE
    assert outcome == expected
    # Fields this short are not cut as long as a caption can be.
    captions = [found for (kind, _), found in kept if kind == "C"]
    assert not (captions and done.cut and any(captions))
    words = [len(found.split()) for (kind, value), found in kept if kind == "C" and found != value]
    assert len(set(words)) <= 1 or not done.captions_cut or all(count <= 1 for count in words)


@settings(max_examples=100, deadline=None)
@given(parts=PARTS, budget=st.integers(1, 120))
def test_a_larger_budget_keeps_no_less_of_captions(parts: list[tuple[str, str, str]], budget: int) -> None:
    prompt = marked(parts)
    try:
        smaller, larger = cut_of(prompt, budget), cut_of(prompt, budget + 3)
    except PromptTooLong:
        return
    assert len(smaller.text) <= len(larger.text)


def test_text_that_is_no_field_is_never_encoded_where_it_cannot_fit() -> None:
    """An option or an instruction of a million characters costs no more than a field of that length."""
    encoded: list[int] = []

    def encode(text: str) -> list[int]:
        encoded.append(len(text))
        return list(text.encode())

    with pytest.raises(PromptTooLong) as caught:
        cut_prompt(Prompt("x" * 1_000_000), 100, encode, 10)
    assert encoded == []
    assert (caught.value.tokens, caught.value.budget) == (100_000, 100)
