"""Parquet columns of the types that other programs write."""

from __future__ import annotations

import datetime
import decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caslie_ray.dataset._reading import Record
from tests.dataset.sources import read

TEXT = pa.string()
KINDS = [
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int8(), TEXT),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
]


def parquet(path: Path, table: pa.Table) -> list[Record]:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return read(path / "a.parquet", sink.getvalue().to_pybytes())


def cells(path: Path, **columns: pa.Array) -> dict[str, object]:
    (record,) = parquet(path, pa.table({"task": ["SA"], **columns}))
    assert record.row is not None, record.reason
    return record.row


def test_maps_are_mappings_at_any_depth(tmp_path: Path) -> None:
    """Spark writes an object as map<string, string>."""
    texts = pa.map_(TEXT, TEXT)
    deep = pa.map_(TEXT, pa.map_(TEXT, pa.int64()))
    got = cells(
        tmp_path,
        input=pa.array([[("question", "is it blue?"), ("document", "It is green.")]], texts),
        options=pa.array([[[("A", "yes")], [("B", "no")]]], pa.list_(texts)),
        extra=pa.array([{"inner": [("k", [("deep", 1)])]}], pa.struct([("inner", deep)])),
    )
    assert got["input"] == {"question": "is it blue?", "document": "It is green."}
    assert got["options"] == [{"A": "yes"}, {"B": "no"}]


def test_a_map_with_a_key_twice_is_a_reject(tmp_path: Path) -> None:
    column = pa.array([[("review", "one"), ("review", "two")], [("review", "three")]], pa.map_(TEXT, TEXT))
    first, second = parquet(tmp_path, pa.table({"task": ["SA", "SA"], "input": column}))
    assert "review" in (first.reason or "")
    assert second.row is not None
    assert second.row["input"] == {"review": "three"}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_text_of_every_type(tmp_path: Path, kind: pa.DataType) -> None:
    plain = pa.array(["größer"])
    column = plain.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else plain.cast(kind)
    assert cells(tmp_path, output=column)["output"] == "größer"
    nested = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), column)
    assert cells(tmp_path, options=nested)["options"] == ["größer"]


def test_binary_text_that_is_no_utf8_is_a_reject_and_not_replaced(tmp_path: Path) -> None:
    table = pa.table({"task": ["SA", "SA"], "output": pa.array(["größer".encode("cp1252"), b"good"])})
    first, second = parquet(tmp_path, table)
    assert (first.reason or "").startswith("undecodable text: column output")
    assert second.row is not None
    assert second.row["output"] == "good"


def test_image_bytes_stay_bytes(tmp_path: Path) -> None:
    assert cells(tmp_path, images=pa.array([b"\xff\xd8"]))["images"] == b"\xff\xd8"
    listed = pa.array([[{"bytes": b"\xff\xd8", "path": None}]])
    assert cells(tmp_path, images=listed)["images"] == [{"bytes": b"\xff\xd8", "path": None}]


def test_numbers_times_and_structs(tmp_path: Path) -> None:
    got = cells(
        tmp_path,
        output=pa.array([decimal.Decimal("4.50")]),
        input=pa.array([[{"review": "good", "at": datetime.datetime(2024, 1, 2, 3, 4, 5)}]]),
        options=pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
    )
    assert str(got["output"]) == "4.50"
    assert got["input"] == [{"review": "good", "at": datetime.datetime(2024, 1, 2, 3, 4, 5)}]
    assert str(got["options"]).startswith("2023-11-14")


def test_a_binary_id_is_text_or_hexadecimal(tmp_path: Path) -> None:
    """UUIDs are often stored as binary(16)."""
    uuid = bytes.fromhex("f81d4fae7dec11d0a76500a0c91e6bf6")
    assert cells(tmp_path, id=pa.array([uuid], pa.binary(16)))["id"] == uuid.hex()
    assert cells(tmp_path, id=pa.array([bytes(range(16))], pa.binary(16)))["id"] == bytes(range(16)).hex()
    assert cells(tmp_path, sku=pa.array([b"B00-7"]))["id"] == "B00-7"


def test_other_binary_columns_are_left_out_where_they_are_no_text(tmp_path: Path) -> None:
    table = pa.table(
        {"task": ["SA"], "review": pa.array([b"good"]), "embedding": pa.array([b"\xff\xfe"]), "n": [{"raw": b"\xff"}]}
    )
    (record,) = parquet(tmp_path, table)
    assert record.row is not None, record.reason
    assert record.row["other_columns"] == {"review": "good"}
    assert record.notes == ("undecodable column embedding left out", "undecodable column n left out")


def test_the_reason_names_the_column_of_the_source(tmp_path: Path) -> None:
    (record,) = parquet(tmp_path, pa.table({"task": ["SA"], "Answer": pa.array(["größer".encode("cp1252")])}))
    assert (record.reason or "").startswith("undecodable text: column Answer is binary")
