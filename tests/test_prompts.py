"""Prompts that remember which of their characters may be cut."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslie_ray.prompts import Prompt, join, render
from caslie_ray.tasks import caption_line

TEXTS = st.text(alphabet="ab {}c")


def fields_of(prompt: Prompt) -> list[str]:
    return [prompt.text[start:end] for start, end in prompt.fields]


def test_slots_become_fields_and_the_rest_stays() -> None:
    prompt = render("a {{one}} b {{two}} c {{caption}}.", one="1", two="")
    assert prompt == Prompt("a 1 b  c {{caption}}.", ((2, 3), (6, 6)))


def test_one_slot_twice() -> None:
    assert render("{{x}}+{{x}}", x="ab") == Prompt("ab+ab", ((0, 2), (3, 5)))


def test_a_field_is_no_template() -> None:
    assert render("{{a}} {{b}}", a=r"\1 {{b}}", b="B").text == r"\1 {b} B"


def test_what_fills_a_slot_is_not_cut_and_shifts_what_follows() -> None:
    prompt = render("{{a}}: {{caption}} / {{b}}", a="one", b="two")
    filled = prompt.fill("caption", "long " * 9)
    assert filled.text == "one: " + "long " * 9 + " / two"
    assert fields_of(filled) == ["one", "two"]
    assert prompt.text == "one: {{caption}} / two"


def test_a_caption_may_contain_anything() -> None:
    assert Prompt("see {{caption}}").fill("caption", "{{caption}} \\1").text == "see {{caption}} \\1"


def test_filling_a_missing_slot_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"no slot \{\{caption\}\}"):
        Prompt("no slot").fill("caption", "x")


def test_join_moves_the_fields() -> None:
    parts = [render("x: {{t}}", t="one"), Prompt("-"), render("{{t}}", t="two"), Prompt("")]
    joined = join(parts, "\n")
    assert joined.text == "x: one\n-\ntwo\n"
    assert fields_of(joined) == ["one", "two"]
    assert join([], "\n") == Prompt("")


def test_captions_have_spans_of_their_own() -> None:
    parts = [render("1st: {{t}}", t="Tent"), *caption_line("from its image", " a red tent\n"), Prompt("options:")]
    joined = join(parts, "\n")
    assert joined.text == "1st: Tent\nfrom its image: a red tent\noptions:"
    assert fields_of(joined) == ["Tent"]
    assert [joined.text[start:end] for start, end in joined.captions] == ["a red tent"]
    moved = join([Prompt("{{what}} of"), joined], " ").fill("what", "a long title")
    assert [moved.text[start:end] for start, end in moved.captions] == ["a red tent"]
    assert caption_line("from its image", "  ") == []


@settings(deadline=None)
@given(before=TEXTS, after=TEXTS, caption=TEXTS)
def test_no_field_hides_or_creates_a_slot(before: str, after: str, caption: str) -> None:
    prompt = render("<{{before}}> <{{c}}> <{{after}}>", before=before, after=after)
    assert prompt.text.count("{{c}}") == 1
    (start, end), (later, last) = prompt.fields
    filled = prompt.fill("c", caption)
    assert filled.text == f"<{prompt.text[start:end]}> <{caption}> <{prompt.text[later:last]}>"
    assert fields_of(filled) == fields_of(prompt)


@pytest.mark.parametrize("text", ["{" * 10**6, "}" * 10**6, "{{" + "a" * 10**6, "{{a" * 10**5, "word " * 2 * 10**5])
def test_a_million_characters_take_no_time(text: str) -> None:
    begun = time.process_time()
    assert render("say {{text}}", text=text).text == f"say {text}"
    assert time.process_time() - begun < 2
