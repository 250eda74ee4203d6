"""Records are read liberally; what cannot be read is refused with a reason."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caslie_ray.tasks import TASKS, RowError, find_task, read_split
from tests.tasks.records import RECORDS, input_of, record, refusal, sample

CODES = [*RECORDS]
NAN = float("nan")
NOTHING: tuple[object, ...] = (None, NAN, "", "  ", [], {})
LONE = "\ud83d"


@pytest.mark.parametrize("code", CODES)
def test_the_released_record(code: str) -> None:
    given = record(code, caption_info=None)
    row = sample(code)
    assert (row.task, row.split, row.output) == (find_task(code).name, "train", given["output"])
    assert row.options == tuple(json.loads(str(given["options"])))
    assert row.images == tuple(json.loads(str(given["images"])))
    assert row.instruction == find_task(code).instruction
    assert row.captions == ()


@pytest.mark.parametrize("code", CODES)
def test_decoded_cells_give_the_same_sample_as_json(code: str) -> None:
    cells = {key: json.loads(str(record(code)[key])) for key in ("input", "options", "images")}
    assert sample(code, **cells) == sample(code)
    assert sample(code, **cells).sample_id == sample(code).sample_id


@pytest.mark.parametrize("code", CODES)
def test_missing_cells_are_refused_by_name(code: str) -> None:
    for nothing in NOTHING:
        assert "is missing" in refusal(code, input=nothing)
        assert "split is missing" in refusal(code, split=nothing)


@pytest.mark.parametrize("code", CODES)
def test_a_record_needs_no_true_answer(code: str) -> None:
    for nothing in NOTHING:
        found = sample(code, output=nothing)
        assert (found.output, found.split) == ("", sample(code).split)
        assert sample(code, output=nothing, split=nothing).split == "train"
        assert find_task(code).view_prompts(found) == find_task(code).view_prompts(sample(code))


@pytest.mark.parametrize("code", CODES)
def test_an_empty_record_is_refused(code: str) -> None:
    with pytest.raises(RowError):
        find_task(code).parse({})


@pytest.mark.parametrize("code", CODES)
def test_options_are_the_tasks_own_where_the_record_has_none(code: str) -> None:
    labels = find_task(code).labels
    if labels:
        assert sample(code, options=NAN).options == labels
    else:
        assert "options are missing" in refusal(code, options=None)


@pytest.mark.parametrize("options", [["A: Kettle", ""], ["A: Kettle", "B:"], ["A: Kettle", None], ["A: x", "  "]])
def test_an_empty_option_is_refused(options: list[str]) -> None:
    assert "an option is empty" in refusal("SR", options=options)


@pytest.mark.parametrize(
    ("spelling", "split"),
    [("train", "train"), ("Training", "train"), ("val", "validation"), ("dev", "validation"),
     ("test", "ind"), ("IND", "ind"), ("IND_test", "ind"), ("in-domain", "ind"), ("test_ind", "ind"),
     ("OOD", "ood"), ("ood_test", "ood"), ("Out of Domain", "ood"), ("test-ood", "ood")],
)  # fmt: skip
def test_splits_as_people_spell_them(spelling: str, split: str) -> None:
    assert read_split(spelling) == split


@pytest.mark.parametrize("value", ["holdout", "trains", 5, ["train", "test"]])
def test_other_splits_are_refused(value: object) -> None:
    with pytest.raises(RowError, match=r"is unknown: use train, validation, test \(in domain\) or ood"):
        read_split(value)


def test_a_reason_stays_short() -> None:
    assert len(refusal("SA", split="x" * 10**6)) < 200


@pytest.mark.parametrize("task", TASKS.values(), ids=CODES)
def test_tasks_by_code_and_name(task: Any) -> None:
    spaced = task.name.replace("_", " ")
    for name in (task.code, task.code.lower(), task.name, task.name.upper(), spaced.title(), f" {spaced} "):
        assert find_task(name) is task


@pytest.mark.parametrize("name", ["XY", "", None, NAN, 3, ["SR"]])
def test_other_tasks_are_refused(name: object) -> None:
    with pytest.raises(RowError, match=r"use one of answerability_prediction \(AP\), category_"):
        find_task(name)


def test_plain_text_is_the_input_of_a_task_with_one_field() -> None:
    assert sample("SA", input="  Fine. ").input == (("review", "Fine."),)
    assert sample("CC", input='"A drill"').input == (("title", "A drill"),)
    assert sample("CC", input="[broken json").input == (("title", "[broken json"),)
    assert sample("AP", input="Does it float?").input == (("question", "Does it float?"), ("document", ""))
    assert "give a JSON object with query, product title" in refusal("PSI", input="drill")


def test_keys_in_other_spellings() -> None:
    assert sample("CC", input={"Product_Title": "Drill"}).input == (("title", "Drill"),)
    assert sample("PRP", input={"product1": "a", "product2": "b"}).input == (("product 1", "a"), ("product 2", "b"))
    assert sample("MPC", input={"title": "b", "query": "a"}).input == (("query", "a"), ("product title", "b"))


@pytest.mark.parametrize("key", ["document", "review", "Reviews", "supporting_document", "context", "passage"])
def test_the_document_of_ap_under_any_key(key: str) -> None:
    cells = {"question": "Does it float?", key: "Ours sank at once."}
    assert sample("AP", input=cells).input == sample("AP").input


@pytest.mark.parametrize("rest", [{}, {"document": None}, {"document": NAN}, {"review": "", "note": None}])
def test_ap_without_a_document(rest: Mapping[str, object]) -> None:
    row = sample("AP", input={"question": "Why?", **rest})
    assert row.field("document") == ""
    assert "\ndocument" not in find_task("AP").prompt(row, [None]).text


@pytest.mark.parametrize("nothing", ["", "   ", None, NAN, []])
def test_an_empty_title_is_refused(nothing: object) -> None:
    assert refusal("CC", input={"title": nothing}) == "input field 'title' is empty: give its text"
    assert "'product 2' is empty" in refusal("PRP", input={"product 1": "mug", "product 2": nothing})
    assert "product 2 of the purchase history" in refusal("SR", input=["1st: Tent", nothing])


def test_a_missing_field_is_refused_by_name() -> None:
    assert refusal("MPC", input={"query": "a"}) == "input field 'product title' is missing: give its text"


def test_marks_without_a_title_are_empty() -> None:
    assert "product 1 of the purchase history" in refusal("SR", input=["1st:", "2nd: Stove"])


@pytest.mark.parametrize(
    "history",
    [["1st: Tent", "2nd: Stove"], ["Tent", "Stove"], "1st: Tent\n\n2nd: Stove\n", {"1st": "Tent", "2nd": "Stove"},
     {"history": ["Tent", "Stove"]}, {"purchase_history": '["1st: Tent", "2nd: Stove"]'},
     [{"title": "Tent"}, ["Stove"]]],
)  # fmt: skip
def test_histories_in_many_forms(history: object) -> None:
    assert sample("SR", input=history).input == (("1st", "Tent"), ("2nd", "Stove"))
    assert sample("SR", input=history if isinstance(history, str) else json.dumps(history)) == sample("SR")


def test_ordinals() -> None:
    titles = [str(n) for n in range(1, 123)]
    places = [place for place, _ in sample("SR", input=titles, images=[]).input]
    assert [places[n - 1] for n in (1, 2, 3, 4, 11, 12, 13, 20, 21, 22, 23, 101, 111, 121)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "20th", "21st", "22nd", "23rd", "101st", "111th", "121st",
    ]  # fmt: skip


def test_a_product_given_with_its_category_and_brand() -> None:
    product = {"brand": "Acme", "title": "Tent", "category": "Camping"}
    assert sample("SR", input=[product, "2nd: Stove"]).input[0] == ("1st", "Tent, Camping, Acme")


def test_wrong_types_are_read_as_text() -> None:
    assert sample("CC", input={"title": 5}).field("title") == "5"
    assert sample("CC", input={"title": ["a", None, "b"]}).field("title") == "a b"
    assert sample("CC", input={"title": b"caf\xc3\xa9 \xff"}).field("title") == "café �"
    assert sample("CC", input=7.5).field("title") == "7.5"
    assert sample("CC", options=["A", 2, 3.5], output=2).options == ("A", "2", "3.5")
    assert sample("CC", options={"first": "A", "second": "B"}).options == ("A", "B")
    assert sample("CC", options="Drills\n\nSaws\n").options == ("Drills", "Saws")


def test_nesting_without_end_is_refused() -> None:
    deep: list[object] = []
    for _ in range(600):
        deep = [deep, "x"]
    for cells in ({"input": deep}, {"input": json.dumps(deep)}, {"images": [deep]}, {"options": deep}):
        assert "nested" in refusal("CC", **cells)
    assert sample("CC", input="[" * 10**5).field("title") == "[" * 10**5


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from(["a", "é", "😀", LONE, "\udc00", "\ufeff", "\x00", "\n", " "])))
def test_every_text_can_be_stored(text: str) -> None:
    row = sample("SA", input={"review": f"x{text}x"}, instruction=f"y{text}")
    assert pa.array([row.field("review"), row.instruction]).to_pylist() == [row.field("review"), row.instruction]
    assert row.field("review").encode()[:1] == b"x"


def test_lone_surrogates_become_replacement_characters() -> None:
    assert sample("SA", input=f'{{"review": "a{LONE}b"}}').field("review") == "a�b"
    assert sample("SA", input='{"review": "a\\ud83d"}').field("review") == "a�"
    assert sample("SA", input='{"review": "a\\ud83d\\ude00"}').field("review") == "a😀"
    assert len(sample("SA", instruction=LONE).sample_id) == 32


def test_a_review_of_a_million_characters() -> None:
    review = "good {{caption}} " * 10**5
    begun = time.process_time()
    row = sample("SA", input={"review": review})
    (view,) = find_task("SA").view_prompts(row)
    assert row.field("review") == review.strip()
    assert len(view.caption.text) > 10**6
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("code", "count"), [("AP", 1), ("CC", 1), ("PRP", 2), ("PSI", 1), ("MPC", 1), ("SA", 1), ("SR", 4)]
)
def test_one_image_a_product(code: str, count: int) -> None:
    urls = [f"{n}.jpg" for n in range(count)]
    assert sample(code, images=urls).images == tuple(urls)
    assert sample(code, images=urls[:-1]).images == (*urls[:-1], None)
    assert len(find_task(code).view_prompts(sample(code))) == count
    reason = f"{count + 1} images for {count} product(s): give one image per product, in order"
    assert refusal(code, images=[*urls, "more.jpg"]) == reason


@pytest.mark.parametrize("nothing", [None, NAN, "", [], "[]", [None], [""], [NAN], {"bytes": None, "path": None}])
def test_no_image_is_a_missing_reference(nothing: object) -> None:
    assert sample("CC", images=nothing).images == (None,)


def test_a_missing_image_keeps_its_place() -> None:
    assert sample("SR", images=["a", None, "", "d"]).images == ("a", None, None, "d")


@pytest.mark.parametrize(
    ("cell", "reference"),
    [("a.jpg", "a.jpg"), (b"\xff\xd8", b"\xff\xd8"), (bytearray(b"x"), b"x"), (b"", None),
     ({"bytes": b"\xff", "path": "a.jpg"}, b"\xff"), ({"bytes": None, "path": "a.jpg"}, "a.jpg"),
     ({"url": "https://a.example/a"}, "https://a.example/a"), ({}, None)],
)  # fmt: skip
def test_images_in_the_forms_of_data_sets(cell: object, reference: object) -> None:
    assert sample("CC", images=cell).images == (reference,)
    assert sample("PRP", images=[cell, "b.jpg"]).images == (reference, "b.jpg")


def test_captions_that_come_with_the_data() -> None:
    told = ["a tent", "", None, "a tent"]
    assert sample("SR", caption_info=told).captions == ("a tent", None, None, "a tent")
    assert sample("SR", caption_info=json.dumps(told)).captions == ("a tent", None, None, "a tent")
    assert sample("SR", caption_info=["a tent"]).captions == ("a tent", None, None, None)
    assert sample("CC", caption_info="a drill,\nyellow").captions == ("a drill,\nyellow",)
    assert sample("CC", caption_info=NAN).captions == ()


def test_the_id_is_of_the_content_alone() -> None:
    here = sample("CC")
    assert here.sample_id == sample("CC", split="ood").sample_id
    assert here.sample_id == sample("CC", caption_info=["other"]).sample_id
    changed: list[dict[str, object]] = [
        {"input": {"title": "Other"}}, {"options": ["A: Power Drills"]}, {"output": "B: Hand Saws"},
        {"images": ["b.jpg"]}, {"images": None}, {"instruction": "Other"},
    ]  # fmt: skip
    assert len({here.sample_id, *(sample("CC", **change).sample_id for change in changed)}) == 7


def test_the_input_of_every_task_is_kept_in_order() -> None:
    for code in CODES:
        if code != "SR":
            assert dict(sample(code).input) == input_of(code)
