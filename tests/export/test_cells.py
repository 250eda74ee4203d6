"""Texts as cells."""

from __future__ import annotations

import pytest

from caslie_ray.export._cells import on_one_line, quoted, safe, shortened


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"])
def test_formulas_begin_with_an_apostrophe(text: str) -> None:
    assert safe(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "A mug", "1-1", " =1", "'=1", "é"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert safe(text) == text


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("a red mug", 9, "a red mug"),
        ("a red mug", 8, "a red…"),
        ("a red mug", 6, "a red…"),
        ("a red mug", 5, "a…"),
        ("unbreakable", 5, "unbr…"),
        ("a  b", 3, "a…"),
        ("", 3, ""),
    ],
)
def test_texts_are_cut_between_words(text: str, limit: int, shown: str) -> None:
    assert shortened(text, limit) == shown
    assert len(shown) <= limit


def test_a_line_has_no_tabs_and_line_breaks() -> None:
    assert on_one_line(" a\tb\r\n\u2028c  d\x85") == "a b c d"


def test_quotes_are_doubled() -> None:
    assert quoted('a "b"') == '"a ""b"""'
