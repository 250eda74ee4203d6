"""Cells of a catalogue as plain values and as texts."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import numpy as np
import pytest

from caslie_ray.catalogue._cells import cell_id, cell_text, has_binary, native

ENGLISH = {"language_tag": "en_GB", "value": "Red mug"}
GERMAN = {"language_tag": "de_DE", "value": "Rote Tasse"}


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, ""),
        (float("nan"), ""),
        (Decimal("NaN"), ""),
        (np.float32("nan"), ""),
        ("  mug ", "mug"),
        ("a \ud800 b", "a \ufffd b"),
        (True, "true"),
        (np.bool_(False), "false"),
        (12, "12"),
        (12.0, "12"),
        (4.1, "4.1"),
        (1e300, "1e+300"),
        (np.int64(3), "3"),
        (Decimal("1.50"), "1.50"),
        (date(2025, 1, 2), "2025-01-02"),
        (b"mug", "mug"),
        (b"\xff\xd8\xff", ""),
        (b"a\0b", ""),
        (memoryview(b"mug"), "mug"),
        ([], ""),
        (["red", None, "blue"], "red, blue"),
        (["Soft.", "Warm!", "red"], "Soft. Warm! red"),
        (np.array(["red", "blue"]), "red, blue"),
        (np.array([["a", "b"], ["c", "d"]]), "a, b, c, d"),
        ({"Brand": "Mugs", "Age": None, "Sizes": [1, 2]}, "Brand: Mugs, Sizes: 1, 2"),
        ({1: "one"}, "1: one"),
        ('["red", "blue"]', "red, blue"),
        ("['red', 'blue']", "red, blue"),
        ('{"Brand": "Mugs"}', "Brand: Mugs"),
        ("[NEW] Mug", "[NEW] Mug"),
        ('{"broken', '{"broken'),
        ([GERMAN, ENGLISH], "Red mug"),
        ([GERMAN], "Rote Tasse"),
        ([{"value": "MUG"}], "MUG"),
        ([{"value": 2, "unit": "l"}], "value: 2, unit: l"),
    ],
)
def test_a_cell_is_read_as_text(cell: object, text: str) -> None:
    assert cell_text(native(cell)) == text


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (["Home", "Mugs"], "Home > Mugs"),
        ([["Home", "Mugs"], ["Gifts"]], "Home > Mugs, Gifts"),
        ("['Home', 'Mugs']", "Home > Mugs"),
        ("Home > Mugs", "Home > Mugs"),
    ],
)
def test_levels_are_joined_from_general_to_special(cell: object, text: str) -> None:
    assert cell_text(native(cell), levels=True) == text


@pytest.mark.parametrize(
    ("cell", "product_id"),
    [
        (1.0, "1"),
        (7, "7"),
        (np.float64(7), "7"),
        (" A-1 ", "A-1"),
        (b"A-1", "A-1"),
        (["A-1"], "A-1"),
        (["A-1", "B-2"], ""),
        ({"id": 1}, ""),
        (float("nan"), ""),
        (None, ""),
        ("00012", "00012"),
    ],
)
def test_a_cell_is_read_as_an_id(cell: object, product_id: str) -> None:
    assert cell_id(native(cell)) == product_id


def test_deeply_nested_values_are_read() -> None:
    nested: object = "mug"
    for _ in range(150):
        nested = [nested]
    assert "mug" in cell_text(native(nested))
    assert "]" not in cell_text(native([[["mug"]]]))


def test_integers_that_python_does_not_print_are_hexadecimal() -> None:
    assert cell_text(16**5000) == "0x1" + "0" * 5000


def test_only_bytes_that_are_no_text_are_binary() -> None:
    assert has_binary({"bytes": b"\xff\xd8", "path": None})
    assert has_binary([b"\xff"])
    assert not any(map(has_binary, (b"mug", b"", "mug", None, {"path": "a.jpg"})))
