"""Cells as spreadsheets, pandas and numpy leave them: decoded where a structure is meant, plain text elsewhere."""

from __future__ import annotations

import json
import time

import pytest

from caslie_ray.tasks import RowError, find_task
from caslie_ray.tasks._cells import decoded
from tests.tasks.records import record, refusal, sample

REVIEW = {"review": 'It\'s "fine".'}
CHOICES = ["positive", "negative"]


@pytest.mark.parametrize(
    "cell",
    [
        json.dumps(json.dumps(REVIEW)),
        json.dumps(json.dumps(json.dumps(REVIEW))),
        str(REVIEW),
        repr(json.dumps(REVIEW)),
        repr(json.dumps(REVIEW).encode()),
        json.dumps(str(REVIEW)),
        json.dumps(REVIEW).encode(),
        str({**REVIEW, "rating": float("nan"), "photo": None}),
        f"  {REVIEW}\n",
    ],
)
def test_an_object_is_read_however_often_it_was_encoded(cell: object) -> None:
    assert sample("SA", input=cell).input == tuple(REVIEW.items())


@pytest.mark.parametrize(
    "cell",
    [
        json.dumps(json.dumps(CHOICES)),
        str(CHOICES),
        str(tuple(CHOICES)),
        "['positive' 'negative']",
        "['positive'\n 'negative']",
        "array(['positive', 'negative'], dtype=object)"[6:-15],
        "{'text': array(['positive', 'negative'], dtype=object)}",
    ],
)
def test_a_list_is_read_in_every_printed_form(cell: str) -> None:
    assert sample("SA", options=cell, output="negative").options == tuple(CHOICES)


@pytest.mark.parametrize("cell", ["['Tent' 'Stove']", "['1st: Tent', '2nd: Stove']", "{'history': ['Tent', 'Stove']}"])
def test_histories_are_read_in_every_printed_form(cell: str) -> None:
    assert sample("SR", input=cell) == sample("SR")


@pytest.mark.parametrize(
    "review",
    [
        "[Verified] great",
        '["Verified"] great',
        "{sigh} it broke",
        "{ review }",
        '"Great" mug',
        "'Great mug'",
        '("Great mug")',
        "['best' mug of the year]",
        "[5/5]",
        "{not json",
        "(b) is right",
    ],
)
def test_a_review_that_starts_like_a_structure_is_text(review: str) -> None:
    for cell in (review, {"review": review}, json.dumps({"review": review})):
        assert sample("SA", input=cell).input == (("review", review),)


@pytest.mark.parametrize(
    "cell",
    [
        '{"review": "unterminated',
        "{'review': 'unterminated",
        "{'review': open('/etc/passwd').read()}",
        "{'review': Timestamp('2020-01-01')}",
        "{review: bare key}",
        "{ Review : bare key}",
    ],
)
def test_an_object_that_cannot_be_decoded_is_refused(cell: str) -> None:
    assert refusal("SA", input=cell).startswith("input cannot be decoded")


@pytest.mark.parametrize("column", ["options", "images"])
@pytest.mark.parametrize(
    "cell", ["['a', 'b", '["a", ', "['a' 'b', 'c']", "['a' 'b' ... 'c']", "['a''b' 'c']", "{'a': f'{1}'}"]
)
def test_a_list_that_cannot_be_decoded_is_refused(column: str, cell: str) -> None:
    assert refusal("SA", **{column: cell}).startswith(f"{column} cannot be decoded: the text starts like JSON")


@pytest.mark.parametrize("cell", ['{"caption": "A red', "['a', 'b", '["a", ', '["Verified"] a mug'])
def test_a_caption_that_cannot_be_decoded_counts_as_missing(cell: str) -> None:
    row = sample("SA", caption_info=cell)
    assert (row.captions, row.notes) == ((), ("captions that cannot be decoded taken as missing",))
    assert row.sample_id == sample("SA").sample_id


@pytest.mark.parametrize("text", ["(5, 4)", '("a","b")', "{5}", "[True]", "{1: 2}", "()", "('a',)"])
def test_a_text_that_is_a_literal_of_plain_values_is_text(text: str) -> None:
    for cell in (text, json.dumps(text), {"review": text}):
        assert sample("SA", input=cell).field("review") == text
    assert sample("SA", caption_info=text).captions == (text,)


def test_a_tuple_or_set_is_a_list_where_a_column_holds_one() -> None:
    assert sample("SR", input="('Tent', 'Stove')") == sample("SR")
    assert sample("CC", options="('Saws', 'Drills')", output="Saws").options == ("Saws", "Drills")
    assert sample("CC", options="(5, 4)", output="4").options == ("5", "4")
    assert sample("PRP", images="('a.jpg', 'b.jpg')").images == ("a.jpg", "b.jpg")
    assert sample("PRP", caption_info="[None, 'a mug']").captions == (None, "a mug")


def test_encoding_layers_are_bounded() -> None:
    cell: object = REVIEW
    for _ in range(4):
        cell = json.dumps(cell)
    assert decoded(cell) == REVIEW
    assert "more than 4 layers" in refusal("SA", input=json.dumps(cell))


@pytest.mark.parametrize("cell", ["[" * 10**5 + "'a'", "(" * 150 + "'a'" + ")" * 150, "['" + "-" * 10**5, "{" * 10**5])
def test_nesting_without_end_is_no_literal(cell: str) -> None:
    begun = time.process_time()
    assert decoded(cell) == cell
    assert time.process_time() - begun < 1


@pytest.mark.parametrize("nothing", ["NA", "n/a", "NaN", "None", "null", " NA ", "<NA>"])
def test_a_caption_placeholder_for_none_counts_as_missing(nothing: str) -> None:
    row = sample("PRP", caption_info=[nothing, "a mug"])
    assert row.captions == (None, "a mug")
    assert sample("CC", caption_info=nothing).captions == (None,)
    assert row.notes == ("captions of NA, nan, None or null taken as missing",)
    assert sample("CC", caption_info="None of the mugs").captions == ("None of the mugs",)


def flat(code: str, **columns: object) -> dict[str, object]:
    return {key: cell for key, cell in record(code).items() if key != "input"} | {"other_columns": columns}


def test_columns_take_the_place_of_the_input() -> None:
    task = find_task("MPC")
    row = task.parse(flat("MPC", query="oak table", product_title="Pine table", price=3))
    assert row == sample("MPC")
    assert row.notes == ("inputs read from the row's own columns",)
    assert find_task("SR").parse(flat("SR", history='["Tent", "Stove"]')) == sample("SR")
    ap = find_task("AP").parse(flat("AP", question="Does it float?", review="Ours sank at once.", price=3))
    assert ap == sample("AP")


@pytest.mark.parametrize("columns", [{"price": 3, "title": "Pine table"}, {"price": 3}])
def test_columns_without_all_fields_are_named(columns: dict[str, object]) -> None:
    with pytest.raises(RowError) as caught:
        find_task("MPC").parse(flat("MPC", **columns))
    assert str(caught.value) == (
        f"input is missing: put its fields into an object `input`; other columns are {', '.join(columns)}"
    )
