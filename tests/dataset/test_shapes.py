"""Rows that are not at the top of a JSON file: below a key, below a split, in wrappers, in columns."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from caslie_ray.dataset import _text_stream
from caslie_ray.dataset._limits import DEFAULT
from caslie_ray.dataset._reading import read_source
from caslie_ray.dataset._sources import find_sources
from tests.dataset.sources import COLUMNS, read, reviews, sentiment, splits

ROWS = [sentiment(number) for number in range(3)]
EXPECTED = [f"Review {number}." for number in range(3)]
NO_SPLIT = [{key: value for key, value in row.items() if key != "split"} for row in ROWS]


def column_table(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [row[key] for row in rows] for key in rows[0]}


def indexed_table(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What ``pandas.DataFrame.to_json()`` writes."""
    return {key: {str(number): row[key] for number, row in enumerate(rows)} for key in rows[0]}


def split_table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What ``pandas.DataFrame.to_json(orient="split")`` writes."""
    return {"columns": list(rows[0]), "index": [*range(len(rows))], "data": [list(row.values()) for row in rows]}


SHAPES: dict[str, Any] = {
    "data": {"data": ROWS},
    "metadata beside": {"version": 1, "info": {"by": "me"}, "features": [{"name": "task"}], "data": ROWS, "n": 3},
    "two levels": {"dataset": {"rows": ROWS}},
    "viewer": {
        "features": [{"feature_idx": 0, "name": "task", "type": {"dtype": "string"}}],
        "rows": [{"row_idx": at, "row": row, "truncated_cells": []} for at, row in enumerate(ROWS)],
        "num_rows_total": 3,
    },
    "search index": {"took": 3, "hits": {"total": {"value": 3}, "hits": [{"_id": "x", "_source": r} for r in ROWS]}},
    "pandas table": {"schema": {"fields": [{"name": "task", "type": "string"}]}, "data": ROWS},
    "rows by id": {f"row-{number}": row for number, row in enumerate(ROWS)},
    "columns": column_table(ROWS),
    "pandas columns": indexed_table(ROWS),
    "pandas split": split_table(ROWS),
    "columns below a key": {"data": column_table(ROWS)},
}  # fmt: skip


@pytest.mark.parametrize("window", [_text_stream.PIECE, 40])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_in_every_shape(
    tmp_path: Path, shape: str, indent: int | None, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a small window the file does not fit into the buffer, as a large file does not."""
    monkeypatch.setattr(_text_stream, "PIECE", window)
    records = read(tmp_path / "a.json", json.dumps(SHAPES[shape], indent=indent))
    assert reviews(records) == EXPECTED
    assert [record.number for record in records] == [1, 2, 3]
    assert all(record.notes for record in records)


@pytest.mark.parametrize("window", [_text_stream.PIECE, 40])
@pytest.mark.parametrize("below", [False, True])
def test_a_split_key_gives_the_split_of_rows_that_name_none(
    tmp_path: Path, below: bool, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_text_stream, "PIECE", window)
    document: dict[str, Any] = {
        "train": NO_SPLIT[:1],
        "dev": NO_SPLIT[1:2],
        "ood_test": [*NO_SPLIT[2:], sentiment(9)],
        "empty": [],
    }
    document = {"data": document} if below else document
    records = read(tmp_path / "train.json", json.dumps(document))
    assert splits(records) == ["train", "validation", "ood", "test"]


def test_rows_below_keys_in_lines_and_gzip(tmp_path: Path) -> None:
    pages = [{"rows": [{"row_idx": at, "row": row}]} for at, row in enumerate(ROWS)]
    lines = "\n".join(map(json.dumps, pages))
    assert reviews(read(tmp_path / "a.jsonl", lines)) == EXPECTED
    assert reviews(read(tmp_path / "a.json", lines)) == EXPECTED
    assert reviews(read(tmp_path / "a.json.gz", gzip.compress(json.dumps({"data": ROWS}).encode()))) == EXPECTED
    assert reviews(read(tmp_path / "batches.json", json.dumps([ROWS[:2], ROWS[2:]]))) == EXPECTED


def test_a_key_that_occurs_twice_loses_no_rows(tmp_path: Path) -> None:
    one, two, three = map(json.dumps, ROWS)
    assert reviews(read(tmp_path / "a.json", f'{{"data": [{one}, {two}], "data": [{three}]}}')) == EXPECTED


def test_an_ordinary_row_is_no_container(tmp_path: Path) -> None:
    """Lists of objects inside of a row stay in the row, wherever the column `task` is."""
    row = {"history": [{"title": "a"}], "data": [{"x": 1}], "input": {"review": "Review 0."}, "task": "SA"}
    for text in (json.dumps(row), json.dumps([row]), json.dumps(row, indent=2)):
        (record,) = read(tmp_path / "a.json", text)
        assert record.row is not None
        assert (record.row["task"], record.notes) == ("SA", ())


@pytest.mark.parametrize("window", [_text_stream.PIECE, 40])
def test_damage_below_a_key_rejects_only_the_damaged_rows(
    tmp_path: Path, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_text_stream, "PIECE", window)
    a, b, c = map(json.dumps, NO_SPLIT)
    damaged = f'{{"v": 1, "train": [{a}, {{"task": "x", "no": "end, "more": 1}}], "test": [{b}, oops, {c}]}}'
    records = read(tmp_path / "a.json", damaged)
    assert reviews(records) == [EXPECTED[0], "invalid JSON", EXPECTED[1], "invalid JSON", EXPECTED[2]]
    assert splits(records) == ["train", "ind", "ind"]
    cut = read(tmp_path / "b.json", f'{{"train": [{a}, {b}, {c[:60]}')
    assert reviews(cut) == [*EXPECTED[:2], "truncated file"]


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"data": [], "version": 1}, "lists are empty"),
        ({"data": [{"title": "Mug"}], "version": 1}, "'data', 'version'"),
        ({"task": ["SA", "SA"], "split": ["test"], "input": ["a", "b"]}, "split 1"),
        ({"rows": [{"row_idx": 0, "row": sentiment(0), "truncated_cells": ["input"]}]}, "input"),
    ],
)
def test_what_cannot_be_read_is_one_reject_that_names_it(tmp_path: Path, document: Any, found: str) -> None:
    (record,) = read(tmp_path / "a.json", json.dumps(document))
    assert record.row is None
    assert found in (record.reason or "")


def test_a_table_in_columns_that_is_too_large_is_one_reject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_text_stream, "PIECE", 1000)
    limits = replace(DEFAULT, row_bytes=5000)
    for shape in (column_table, indexed_table):
        (record,) = read(tmp_path / "a.json", json.dumps(shape([sentiment(n) for n in range(200)])), limits=limits)
        assert "columns" in (record.reason or "")
        assert "JSON Lines" in (record.reason or "")


def test_a_large_file_below_a_key_is_read_in_flat_memory(tmp_path: Path) -> None:
    """One line of 40 MB, with a list of metadata before the rows that no window holds."""
    count = 10_000
    with (tmp_path / "large.json").open("w") as file:
        file.write('{"vocabulary": [' + ",".join(f'["{n}", 0.5]' for n in range(200_000)) + '], "data": [')
        for number in range(count):
            row = sentiment(number, note="words and more " * 220)
            file.write(("," if number else "") + json.dumps(row))
        file.write("]}")
    (source,), _ = find_sources([str(tmp_path / "large.json")])
    process = psutil.Process()
    before = process.memory_info().rss
    seen = most = 0
    for record in read_source(source, COLUMNS):
        assert record.row is not None
        seen += 1
        if seen % 1000 == 0:
            most = max(most, process.memory_info().rss - before)
    assert seen == count
    assert most < 80 << 20


@pytest.mark.parametrize("key", ["meta", "history"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("layout", ["lines", "values"])
def test_an_object_inside_a_large_row_is_no_row(tmp_path: Path, key: str, first: bool, layout: str) -> None:
    """Rows of 1.6 MB, as images in base64 make them, with an object inside that has a column `task` too."""
    inside = {"meta": {"task": "x", "by": "me"}, "history": [{"task": "y"}, {"task": "z"}]}[key]
    large = sentiment(0, images=["A" * 1_600_000])
    row = {key: inside, **large} if first else {**large, key: inside}
    text = json.dumps(row)
    data = f"{text}\n\n{text}\n" if layout == "lines" else f"{text} {text}"
    records = read(tmp_path / ("a.jsonl" if layout == "lines" else "a.json"), data)
    assert reviews(records) == ["Review 0.", "Review 0."]
    assert [record.number for record in records] == ([1, 3] if layout == "lines" else [1, 2])
    assert all(record.row and record.row["task"] == "sentiment_analysis" for record in records)
    packed = gzip.compress(data.encode(), 1)
    assert [record.number for record in read(tmp_path / "b.jsonl.gz", packed)] == [record.number for record in records]


def test_rows_below_a_key_of_one_long_line_named_jsonl(tmp_path: Path) -> None:
    rows = [sentiment(number, note="words " * 40_000) for number in range(3)]
    for break_ in ("", "\n"):
        text = '{"data": [' + f",{break_}".join(map(json.dumps, rows)) + "]}\n"
        assert reviews(read(tmp_path / "a.jsonl", text)) == EXPECTED


def test_a_list_without_rows_costs_little_memory(tmp_path: Path) -> None:
    """200 KB of numbers before the rows: they are held as they are, not one by one with what was noted on them."""
    numbers = ",".join("7" * 100_000)
    text = f'{{"vocabulary": [{numbers}], "data": {json.dumps(ROWS)}}}'
    tracemalloc.start()
    try:
        assert reviews(read(tmp_path / "a.json", text)) == EXPECTED
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
