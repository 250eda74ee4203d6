"""Options and outputs in the forms of data sets."""

from __future__ import annotations

import pytest

from caslie_ray.tasks import RowError, find_task
from tests.tasks.records import sample

TEXTS = ["positive", "negative"]
LETTERED = ("A: positive", "B: negative")
SENTIMENTS = ["very positive", "positive", "neutral", "negative", "very negative"]


def refusal(code: str, **changes: object) -> str:
    with pytest.raises(RowError) as caught:
        sample(code, **changes)
    return str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        ["A. positive", "B. negative"],
        ["a. positive", "b. negative"],
        ["[A] positive", "[B] negative"],
        ["A - positive", "B - negative"],
        "A. positive\nB. negative",
        {"A": "positive", "B": "negative"},
        {"A": "positive", "B": "negative", "C": None},
        {"A": "A. positive", "B": "B. negative"},
        {"A": ["positive"], "B": ["negative"]},
        "{'A': 'positive', 'B': 'negative'}",
        {"text": TEXTS, "label": ["A", "B"]},
        {"choices": TEXTS, "letters": ["a", "b"]},
        [{"id": "A", "text": "positive"}, {"id": "B", "text": "negative"}],
        [{"key": "A", "value": "positive"}, {"key": "B", "value": "negative"}],
        [{"label": "A", "text": "positive"}, {"label": "B", "text": "negative"}],
        [{"label": "positive", "value": "A"}, {"label": "negative", "value": "B"}],
        [{"A": "positive"}, {"B": "negative"}],
        [["A", "positive"], ["B", "negative"]],
    ],
)
def test_letters_are_kept_as_the_released_data_writes_them(options: object) -> None:
    task = find_task("SA")
    for output in ("A", "positive", "A: positive", "A. positive"):
        row = sample("SA", options=options, output=output)
        assert row.options == LETTERED
        assert task.read_answer(row.output, row.options) == LETTERED[0]
    assert "A: positive\nB: negative" in task.prompt(row, [None]).text
    assert refusal("SA", options=options, output="C") == (
        "output 'C' is none of the options: A: positive, B: negative; give one of them"
    )


@pytest.mark.parametrize("options", [["A) positive", "B) negative"], ["(A) positive", "(B) negative"]])
def test_letters_that_were_always_read_are_left_as_they_are(options: list[str]) -> None:
    row = sample("SA", options=options, output="B")
    assert (row.options, row.output) == (tuple(options), "B")


def test_letters_of_sr_are_no_part_of_a_title() -> None:
    for options in (["A. Kettle", "B. Tent"], {"A": "Kettle", "B": "Tent"}):
        assert sample("SR", options=options) == sample("SR")
    # Initials of a title are no letters unless all options have theirs, in order.
    titles = ["A. Lange watch", "Tent"]
    assert sample("SR", options=titles, output="Tent").options == tuple(titles)


@pytest.mark.parametrize(
    ("options", "output", "expected"),
    [
        ({"0": "positive", "1": "negative"}, 1, "negative"),
        ({"1": "positive", "2": "negative"}, 1.0, "positive"),
        ([{"id": 7, "text": "positive"}, {"id": 9, "text": "negative"}], "9", "negative"),
        ({"B": "positive", "A": "negative"}, "A", "negative"),
        (["1. positive", "2. negative"], 2, "2. negative"),
        ([{"id": "B01", "title": "Kettle", "brand": "Acme"}, {"id": "B02", "title": "Tent"}], "B01", "Kettle, Acme"),
    ],
)
def test_a_number_or_code_of_an_option_stands_for_it(options: object, output: object, expected: str) -> None:
    row = sample("CC", options=options, output=output)
    assert row.output == expected
    assert expected in row.options


@pytest.mark.parametrize("output", [0, 1, 2, "1"])
def test_a_bare_position_is_refused(output: object) -> None:
    reason = refusal("SA", options=TEXTS, output=output)
    assert reason.startswith(
        f"output '{output}' is none of the options: positive, negative (whether counting starts at"
    )


def test_an_output_that_names_two_options_is_refused() -> None:
    assert "names several options: A: B, B: A" in refusal("CC", options={"A": "B", "B": "A"}, output="A")
    assert "names several options" in refusal("CC", options={"1": "2", "2": "1"}, output="1")


@pytest.mark.parametrize("options", [{"text": TEXTS, "label": ["A"]}, {"left": TEXTS, "right": TEXTS}])
def test_lists_that_do_not_fit_are_refused(options: object) -> None:
    assert refusal("SA", options=options, output="A").startswith("options ")


@pytest.mark.parametrize("code", ["AP", "PSI"])
@pytest.mark.parametrize(
    ("spelling", "answer"),
    [(True, "yes"), (False, "no"), (1, "yes"), (0, "no"), (1.0, "yes"), ("true", "yes"), ("FALSE", "no"), ("Y", "yes"),
     ("n", "no"), ("t", "yes"), ("0", "no"), ("[true]", "yes")],
)  # fmt: skip
def test_truths_in_other_words(code: str, spelling: object, answer: str) -> None:
    row = sample(code, output=spelling)
    assert row.output == answer
    assert row.notes == ("outputs of true/false, 1/0 or Y/N read as yes/no",)
    assert sample(code, options=["A: yes", "B: no"], output=spelling).output.endswith(answer)


@pytest.mark.parametrize("options", [[True, False], ["true", "false"], [1, 0], ["Y", "N"], "[True, False]"])
def test_options_in_other_words(options: object) -> None:
    assert sample("PSI", options=options, output=True).options == ("yes", "no")
    assert sample("PSI", options=options, output="false").output == "no"
    assert sample("PSI", options=options, output="yes").output == "yes"


def test_numbers_that_the_row_itself_explains_are_read_by_it() -> None:
    assert sample("PSI", options={"0": "yes", "1": "no"}, output=1).output == "no"


@pytest.mark.parametrize("output", ["maybe", 2, "unanswerable", "mixed", "-1"])
def test_an_output_that_is_no_option_is_refused(output: object) -> None:
    assert refusal("PSI", output=output).startswith(f"output '{output}' is none of the options: yes, no")


@pytest.mark.parametrize(
    "output", ["very_positive", "VERY-POSITIVE", "VeryPositive", "very  positive", "Very_Positive"]
)
def test_labels_in_another_spelling(output: str) -> None:
    row = sample("SA", options=SENTIMENTS, output=output)
    assert find_task("SA").read_answer(row.output, row.options) == "very positive"


@pytest.mark.parametrize("options", ["positive, negative", "positive|negative", ["positive or negative"]])
def test_options_in_one_text_are_refused(options: object) -> None:
    reason = refusal("SA", options=options, output="neutral")
    assert reason.endswith("(this is one option; give several as a JSON list); give one of them")


def test_a_reason_stays_short_however_long_the_output() -> None:
    assert len(refusal("SA", output="x" * 10**6)) < 400
    assert len(refusal("SR", options=["y" * 10**5, "z"], output="x")) < 400
