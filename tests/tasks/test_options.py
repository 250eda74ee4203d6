"""Options and outputs in the forms of data sets."""

from __future__ import annotations

import pytest

from caslie_ray.tasks import TASKS, find_task
from tests.tasks.records import refusal, sample

TEXTS = ["positive", "negative"]
LETTERED = ("A: positive", "B: negative")
SENTIMENTS = ["very positive", "positive", "neutral", "negative", "very negative"]


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
def test_a_number_or_code_of_an_option_selects_it(options: object, output: object, expected: str) -> None:
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
def test_true_answers_in_other_words(code: str, spelling: object, answer: str) -> None:
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


LAMPS = ("Lamp", "Tent")


@pytest.mark.parametrize(
    "options",
    [
        [{"id": "B1", "title": "Lamp", "value": 12.99}, {"id": "B2", "title": "Tent", "value": 5}],
        [{"id": "B1", "title": "Lamp", "name": "lamp-1"}, {"id": "B2", "title": "Tent", "content": "It stands."}],
        [{"id": "B1", "title": "Lamp", "answer": True}, {"id": "B2", "title": "Tent", "answer": False}],
        [{"id": "B1", "text": "Lamp", "is_correct": 1}, {"id": "B2", "text": "Tent", "is_correct": 0}],
        [{"id": "B1", "name": "Lamp", "value": 12.99}, {"id": "B2", "name": "Tent", "value": 5.0}],
        [{"id": "B1", "title": None, "text": "Lamp"}, {"id": "B2", "title": "Tent", "text": None}],
        [{"id": "B1", "product": "Lamp", "correct": True}, {"id": "B2", "product": "Tent", "correct": False}],
        {"id": ["B1", "B2"], "title": ["Lamp", "Tent"], "value": [12.99, 5]},
        {"B1": {"text": "Lamp", "correct": True}, "B2": {"text": "Tent", "correct": False}},
    ],
)
def test_a_product_as_option_is_its_title(options: object) -> None:
    row = sample("CC", options=options, output="B1")
    assert (row.options, row.output) == (LAMPS, "Lamp")
    assert sample("CC", options=options, output="Tent").output == "Tent"
    assert "rue" not in find_task("CC").prompt(row, [None]).text


@pytest.mark.parametrize(
    "options",
    [
        [{"text": "Lamp", "correct": True}, {"text": "Tent", "correct": False}],
        [{"Text": "Lamp", "Is Correct": "true"}, {"Text": "Tent", "Is Correct": "false"}],
        [{"title": "Lamp", "correct": True}, {"title": "Tent", "correct": False}],
        [{"product": "Lamp", "gold": 1}, {"product": "Tent", "gold": 0}],
        [{"choice": "Lamp", "answer": True}, {"choice": "Tent", "answer": False}],
    ],
)
def test_the_mark_of_the_true_option_is_no_part_of_its_text(options: object) -> None:
    assert sample("CC", options=options, output="Lamp").options == LAMPS


@pytest.mark.parametrize("key", ["id", "label"])
def test_options_of_true_and_false_in_objects(key: str) -> None:
    options = [{key: "A", "text": True}, {key: "B", "text": False}]
    assert sample("PSI", options=options, output=True).options == ("A: yes", "B: no")


@pytest.mark.parametrize(
    "output",
    ["very_positive", "VERY-POSITIVE", "very positive", "Very positive.", "the review is very_negative", "neutral"],
)
@pytest.mark.parametrize("options", [TEXTS, list(LETTERED)])
def test_a_label_that_is_none_of_the_options_is_refused(options: list[str], output: str) -> None:
    assert refusal("SA", options=options, output=output).startswith(f"output '{output}' is none of the options")
    assert find_task("SA").read_answer("Very positive.", options) == options[0]


@pytest.mark.parametrize(
    "output",
    ["not positive", "Not Positive", "it isn't positive", "isn’t very positive", "non-positive", "no positive words"],
)
@pytest.mark.parametrize("options", [TEXTS, list(LETTERED), SENTIMENTS])
def test_a_negated_option_is_refused(options: list[str], output: str) -> None:
    assert refusal("SA", options=options, output=output).startswith(f"output {output!r} is none of the options")
    # A model's answer is read as before.
    assert find_task("SA").read_answer("not positive", options) == next(
        o for o in options if o.endswith("positive") and "very" not in o
    )


def test_negations_that_are_part_of_the_answer() -> None:
    assert sample("PSI", output="No, it is not.").output == "No, it is not."
    assert sample("PSI", output="Yes, not all").output == "Yes, not all"
    assert sample("CC", options=["fit", "no fit"], output="No fit").output == "No fit"
    assert sample("CC", options=["A: No 7 Cream", "B: Cream"], output="a. no 7 cream").output == "a. no 7 cream"
    assert sample("MPC", output="not relevant").output == "not relevant"
    assert sample("SA", output="positive, not bad").output == "positive, not bad"
    assert refusal("MPC", output="not a substitute")


@pytest.mark.parametrize("mark", ["", "C. ", "c) ", "C: ", "(C) "])
def test_an_option_whose_own_words_negate_is_read_under_any_mark(mark: str) -> None:
    text = "The product does not fulfill the query, but could be used in combination with it."
    options = ["A: It satisfies all of the query.", "B: It is a substitute.", f"C: {text}"]
    for said in (text, text.removesuffix(" with it.")):
        assert find_task("MPC").true_label(sample("MPC", options=options, output=mark + said).output, options)


def test_objects_among_texts_show_no_mark_of_the_true_option() -> None:
    options = ["Lamp", {"text": "Tent", "correct": True}]
    assert sample("CC", options=options, output="Tent").options == LAMPS


@pytest.mark.parametrize("output", ["5", "A: 5", 5])
def test_an_option_that_matches_no_label_is_refused(output: object) -> None:
    options = ["A: 1", "B: 2", "C: 3", "D: 4", "A: 5"] if output == "A: 5" else ["1", "2", "3", "4", "5"]
    assert refusal("SA", options=options, output=output) == (
        f"the true option '{output}' matches no label of SA: word the options as its labels, very positive,"
        " positive, neutral, negative, very negative"
    )


def test_ap_answers_are_yes_and_no() -> None:
    reason = refusal("AP", options=["answerable", "unanswerable"], output="answerable")
    assert reason == "the true option 'answerable' matches no label of AP: word the options as its labels, yes, no"


@pytest.mark.parametrize("code", [task.code for task in TASKS.values()])
def test_every_option_of_a_released_row_is_accepted_as_its_truth(code: str) -> None:
    for option in sample(code).options:
        row = sample(code, output=option)
        assert find_task(code).true_label(row.output, row.options) is not None
