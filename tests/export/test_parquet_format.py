"""Typed exports."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caslie_ray.export._parquet_format import DATASET, PARQUET, ParquetFormat
from caslie_ray.export._rows import ROWS

VOTES = [[{"voter": "ann", "p_yes": 0.75}, {"voter": "bob", "p_yes": None}], None]


def rows(name: str, count: int = 2) -> pa.Table:
    found = [
        {"id": f"{name}{n}", "context": "c", "image": "", "place": n, "caption": "=1", "verdict": n % 2 == 0,
         "yes_share": None, "probabilities": VOTES[n % 2], "error": ""}
        for n in range(count)
    ]  # fmt: skip
    return pa.Table.from_pylist(found, schema=ROWS)


def joined(form: ParquetFormat, *parts: pa.Table) -> io.BytesIO:
    file = io.BytesIO()
    form.write_all(file, [io.BytesIO(form.encode(part)[0].to_pybytes()) for part in parts])
    return file


def test_probabilities_are_a_map() -> None:
    found = pq.read_table(joined(PARQUET, rows("a"), rows("b")))
    assert found.schema.field("probabilities").type == pa.map_(pa.string(), pa.float64())
    assert found["probabilities"].to_pylist() == [[("ann", 0.75), ("bob", None)], None] * 2
    assert found["id"].to_pylist() == ["a0", "a1", "b0", "b1"]
    assert found["place"].type == pa.int32()
    assert found["caption"].to_pylist() == ["=1"] * 4


def test_probabilities_of_a_data_set_are_a_list() -> None:
    found = pq.read_table(joined(DATASET, rows("a")))
    assert found.schema == ROWS
    assert found["probabilities"].to_pylist() == VOTES


@pytest.mark.parametrize("form", [PARQUET, DATASET])
def test_a_slice_and_no_rows(form: ParquetFormat) -> None:
    data, count = form.encode(rows("a", 6).slice(2, 3))
    assert count == 3
    assert pq.read_table(data)["probabilities"].to_pylist() == form_votes(form)
    empty, none = form.encode(rows("a", 0))
    assert (none, pq.read_table(empty).num_rows) == (0, 0)
    assert pq.read_table(joined(form)).schema == form.schema


def form_votes(form: ParquetFormat) -> list[Any]:
    first = [("ann", 0.75), ("bob", None)] if form is PARQUET else VOTES[0]
    return [first, None, first]


def test_row_groups_of_small_parts_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caslie_ray.export._parquet_format._ROW_GROUP", 5)
    file = pq.ParquetFile(joined(PARQUET, *(rows(name) for name in "abcdef"), rows("g", 12)))
    sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert sizes == [4, 4, 4, 5, 5, 2]
    ids = file.read()["id"].to_pylist()
    assert ids == [f"{name}{n}" for name in "abcdef" for n in range(2)] + [f"g{n}" for n in range(12)]


def test_one_part_is_copied() -> None:
    data = PARQUET.encode(rows("a"))[0].to_pybytes()
    file = io.BytesIO()
    PARQUET.write_one(file, io.BytesIO(data))
    assert file.getvalue() == data
