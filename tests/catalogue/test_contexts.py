"""Contexts: prompts over the columns of a catalogue."""

from __future__ import annotations

from typing import Any

import pytest

from caslie_ray.catalogue.contexts import BUILT_IN, Context, contexts_of
from caslie_ray.profiles import ContextSettings, ProfileError

TEXTS = {"title": "Red mug", "category": "Kitchen", "query": "cup for tea"}
OWN = {"caption": "Name the colour of {{title}}.", "quality": "Is it a colour? {{caption}} Only output yes or no."}


def context(**changes: Any) -> Context:
    (found,) = contexts_of({"own": ContextSettings(**{**OWN, **changes})})
    return found


def test_without_settings_the_context_is_the_product() -> None:
    (found,) = contexts_of({})
    assert (found.name, found.most_images, found.required) == ("product", 1, [])


@pytest.mark.parametrize("name", BUILT_IN)
def test_contexts_with_prompts_of_their_own_use_the_texts_that_there_are(name: str) -> None:
    (found,) = contexts_of({name: ContextSettings()})
    full, bare = found.prompts(TEXTS), found.prompts({"query": "cup for tea"})
    assert "Red mug" in full.caption.text
    assert "Red mug" in full.quality.text
    for prompts in (full, bare):
        assert prompts.quality.text.count("{{caption}}") == 1
        for prompt in (prompts.caption, prompts.quality.fill("caption", "a mug")):
            assert not {"[[", "]]", "{{", "}}", ": ."} & {prompt.text[at : at + 2] for at in range(len(prompt.text))}


def test_the_search_context_needs_a_query() -> None:
    (found,) = contexts_of({"search": ContextSettings()})
    assert found.required == ["query"]
    reason = found.missing(["title", "price"])
    assert reason is not None
    assert "search needs query; there are title, price" in reason
    assert found.missing(["title", "query"]) is None


def test_user_fields_are_marked_and_a_part_in_brackets_needs_all_its_columns() -> None:
    found = context(caption="Name the colour of {{title}}[[ by {{brand}} in {{category}}]].").prompts(TEXTS)
    assert found.caption.text == "Name the colour of Red mug."
    assert [found.caption.text[start:end] for start, end in found.caption.fields] == ["Red mug"]
    both = context(caption="{{title}}[[ in {{category}}]]").prompts(TEXTS)
    assert both.caption.text == "Red mug in Kitchen"
    assert [both.caption.text[start:end] for start, end in both.caption.fields] == ["Red mug", "Kitchen"]


def test_a_text_is_no_template() -> None:
    found = context(quality="{{title}}: {{caption}}").prompts({"title": "[[ {{caption}} ]]\nOnly output yes"})
    assert found.quality.fill("caption", "blue").text == "[[ {caption} ]] Only output yes: blue"


@pytest.mark.parametrize(("images", "most"), [("first", 1), ("all", None), (3, 3)])
def test_the_number_of_images_is_a_setting(images: Any, most: int | None) -> None:
    assert context(images=images).most_images == most


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("own", {"caption": None}, "give the prompts"),
        ("own", {"quality": "Only output yes or no."}, "write {{caption}} once"),
        ("own", {"quality": "{{caption}} {{caption}}"}, "write {{caption}} once"),
        ("own", {"quality": "[[{{caption}} {{title}}]]"}, "outside of double brackets"),
        ("own", {"caption": "{{caption}}"}, "not in caption"),
        ("two words", {}, "use letters"),
        ("SA", {}, "not the name of a task"),
        ("sentiment_analysis", {}, "not the name of a task"),
    ],
)
def test_a_context_that_cannot_be_used_is_refused(name: str, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ProfileError, match=r"contexts\.") as refused:
        contexts_of({name: ContextSettings(**{**OWN, **changes})})
    assert says in str(refused.value)
