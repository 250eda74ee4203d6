"""Reading what a model wrote as one of the options."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from caslie_ray.tasks import find_task, strip_mark
from tests.tasks.records import MPC_OPTIONS, PRP_OPTIONS

SA = ["A: very positive", "B: positive", "C: neutral", "D: negative", "E: very negative"]
CC = ["A: Power Drills", "B: Drills", "C: Hand Saws"]


def read(code: str, text: str, options: Sequence[str]) -> str | None:
    return find_task(code).read_answer(text, options)


@pytest.mark.parametrize(
    ("code", "output", "options", "label"),
    [
        ("AP", "Yes.", ["yes", "no"], "yes"),
        ("AP", "yes", [], "yes"),
        ("AP", "maybe", ["yes", "no"], None),
        ("PRP", PRP_OPTIONS[2], PRP_OPTIONS, "similar"),
        ("PRP", "also buy", PRP_OPTIONS, "also buy"),
        ("PRP", "D", PRP_OPTIONS, None),
        ("SA", "E: very negative", SA, "very negative"),
        ("SA", "E", SA, "very negative"),
        ("SA", "A: great", ["A: great", "B: bad"], None),  # an option without a label
        ("MPC", MPC_OPTIONS[1], MPC_OPTIONS, "substitute"),
        ("CC", "Power Drills", ["A: Power Drills", "B: Drills"], "A: Power Drills"),
        ("CC", "Sanders", ["A: Power Drills", "B: Drills"], None),
    ],
)
def test_the_label_of_a_true_answer(code: str, output: str, options: list[str], label: str | None) -> None:
    assert find_task(code).true_label(output, options) == label


@pytest.mark.parametrize("options", [PRP_OPTIONS, ["also buy", "also view", "similar"]], ids=["lettered", "plain"])
def test_also_buy_is_no_letter_a(options: list[str]) -> None:
    buy, view, similar = options
    for text in ("also buy", "Also buy.", "also_buy", "They also bought it", "often purchased together"):
        assert read("PRP", text, options) == buy
    for text in ("also view", '"also view"', "also viewed", "viewed together"):
        assert read("PRP", text, options) == view
    assert read("PRP", "The products are similar!", options) == similar


@pytest.mark.parametrize(
    "text",
    ["A", "a", "A.", "A:", "A: ", "(A)", "(a).", "a)", " A\n", "**A**", "[A]", "A, because it is", "A: Something else"],
)
def test_a_single_letter_selects_its_option(text: str) -> None:
    assert read("PRP", text, PRP_OPTIONS) == PRP_OPTIONS[0]
    assert read("CC", text.replace("A", "B", 1).replace("(a", "(b").replace("a)", "b)"), CC) in CC


def test_the_letter_chooses_its_option() -> None:
    assert [read("CC", text, CC) for text in ("b.", "(C)", "A: Drills")] == [CC[1], CC[2], CC[0]]


@pytest.mark.parametrize("text", ["a drill of some kind", "Also", "Best of all", "F", "F: none", "A-frame", "A or B"])
def test_no_letter(text: str) -> None:
    assert read("SR", text, ["A: Tent", "B: Stove"]) is None


def test_unlettered_options_have_no_letters() -> None:
    assert read("PRP", "A", ["also buy", "also view", "similar"]) is None
    assert read("CC", "a", ["Saws", "Drills"]) is None


def test_the_exact_option_has_precedence_over_its_letter() -> None:
    options = ["A: B", "B: A"]
    assert read("CC", "B", options) == "A: B"
    assert read("CC", "B: A", options) == "B: A"


@pytest.mark.parametrize("option", CC)
def test_the_exact_option_with_and_without_its_letter(option: str) -> None:
    for text in (option, strip_mark(option), strip_mark(option).upper(), f' "{option}".\n', option.lower()):
        assert read("CC", text, CC) == option


def test_the_longer_option_is_not_the_shorter_one() -> None:
    assert read("CC", "It is among Power Drills", CC) == CC[0]
    assert read("CC", "It is among Drills", CC) == CC[1]
    assert read("CC", "Power Drills, not Drills", CC) is None
    assert read("CC", "Drillspress", CC) is None


@pytest.mark.parametrize("options", [SA, [strip_mark(option) for option in SA]], ids=["lettered", "plain"])
def test_very_positive_is_not_positive(options: list[str]) -> None:
    for option in options:
        assert read("SA", strip_mark(option), options) == option
        assert read("SA", f"The sentiment is {strip_mark(option)}.", options) == option
    assert read("SA", "between positive and negative", options) is None


def test_label_words_choose_the_option_that_means_them() -> None:
    labels = find_task("MPC").labels
    assert [read("MPC", label.title(), MPC_OPTIONS) for label in labels] == MPC_OPTIONS
    assert [find_task("MPC").label(option) for option in MPC_OPTIONS] == list(labels)
    assert [find_task("PRP").label(option) for option in PRP_OPTIONS] == list(find_task("PRP").labels)
    assert [find_task("SA").label(option) for option in SA] == list(find_task("SA").labels)
    assert find_task("CC").label(CC[0]) == CC[0]
    assert find_task("PSI").label("Yes") == "yes"


@pytest.mark.parametrize(
    "text", ["", "  ", ".", "I cannot tell.", "also buy and also view", "A, B", "a/b", "A B C", "\x00"]
)
def test_an_unreadable_answer_is_none(text: str) -> None:
    assert read("PRP", text, PRP_OPTIONS) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [("yes", "yes"), ("Yes.", "yes"), ("NO", "no"), ("No!", "no"), ("**Yes**", "yes"), ("Yes, it is.", "yes"),
     ("No, yes would be wrong", "no"), ("Yes, there is no doubt", "yes"), ("yes: the document says so", "yes"),
     ("I think yes", "yes"), ("The answer is no.", "no"), ("\n yes\n", "yes"), ("yes—it floats", "yes")],
)  # fmt: skip
@pytest.mark.parametrize("code", ["AP", "PSI"])
def test_yes_and_no_in_sentences(code: str, text: str, answer: str) -> None:
    assert read(code, text, ("yes", "no")) == answer
    assert read(code, text, ("A: yes", "B: no")) == {"yes": "A: yes", "no": "B: no"}[answer]
    assert read(code, text, ("Yes", "No")) == answer.title()


@pytest.mark.parametrize("text", ["yes or no", "Yes or no?", "yes/no", "not sure", "nothing", "eyes", "maybe", "y"])
def test_neither_yes_nor_no(text: str) -> None:
    assert read("AP", text, ("yes", "no")) is None


def test_an_answer_of_a_million_characters() -> None:
    assert read("SR", "(" * 10**6, ["A: Tent", "B: Stove"]) is None
    assert read("SR", "x " * 500_000 + "Tent", ["A: Tent", "B: Stove"]) == "A: Tent"


@pytest.mark.parametrize(
    ("text", "title"),
    [("1st: Tent", "Tent"), ("12th : Tent", "Tent"), ("103rd:Tent", "Tent"), ("A: Tent", "Tent"), ("(A) Tent", "Tent"),
     ("A) Tent", "Tent"), (" B:  Tent ", "Tent"), ("Tent", "Tent"), ("A Tent", "A Tent"), ("AB: Tent", "AB: Tent"),
     ("4: Tent", "4: Tent"), ("1st Tent", "1st Tent"), ("1st: A: Tent", "A: Tent"), ("A:", ""), ("1st:", "")],
)  # fmt: skip
def test_marks_before_a_title(text: str, title: str) -> None:
    assert strip_mark(text) == title
