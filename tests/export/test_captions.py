"""Votes as shares and probabilities."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from caslie_ray.export._captions import CAPTIONED, COLUMNS, captions_of
from caslie_ray.storage.schemas import SCHEMAS
from tests.export.shop import caption


def read(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    found = captions_of(pa.Table.from_pylist(list(rows), schema=SCHEMAS["captions"]).select(COLUMNS))
    assert found.schema == CAPTIONED
    read_rows: list[dict[str, Any]] = found.to_pylist()
    return read_rows


def test_the_share_is_of_valid_votes() -> None:
    rows = read(
        caption("a", "x", True, ann=0.9, bob=0.2, cy=0.8, dan=None),
        caption("b", "x", False, ann=None),
        caption("c", "x", False),
        caption("d", "x", False, ann=0.1),
        caption("e", "x") | {"votes": None},
    )
    assert [row["yes_share"] for row in rows] == [2 / 3, None, None, 0.0, None]
    voters = [row["probabilities"] and {one["voter"]: one["p_yes"] for one in row["probabilities"]} for row in rows]
    assert voters == [{"ann": 0.9, "bob": 0.2, "cy": 0.8, "dan": None}, {"ann": None}, None, {"ann": 0.1}, None]


def test_a_row_with_an_error_has_no_verdict() -> None:
    (row,) = read(caption("a", "x", False, "no quorum: 1 valid votes of 5 voters", ann=0.9))
    assert (row["verdict"], row["caption"], row["error"]) == (None, "x", "no quorum: 1 valid votes of 5 voters")


def test_captions_are_trimmed_and_never_null() -> None:
    assert [row["caption"] for row in read(caption("a", " x\n"), caption("b", None))] == ["x", ""]


def test_values_that_are_no_probabilities_are_null() -> None:
    (row,) = read(caption("a", "x", True, ann=float("nan"), bob=float("inf")))
    assert row["probabilities"] == [{"voter": "ann", "p_yes": None}, {"voter": "bob", "p_yes": None}]


def test_no_rows() -> None:
    assert read() == []
