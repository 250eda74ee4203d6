"""Plain text from the HTML of product descriptions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caslie_ray.catalogue.html_text import MAX_CHARACTERS, has_tags, html_to_text


@pytest.mark.parametrize(
    "text", ["a < b", "3 <4> 5", "a<b", "two  spaces\n kept ", "<me@shop.example>", "<", "", "a <b and no end"]
)
def test_a_text_without_tags_stays_as_it_is(text: str) -> None:
    assert html_to_text(text) == text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>A <b>red</b>\n  mug.</p><p>Holds 0.3&nbsp;l.</p>", "A red mug.\nHolds 0.3 l."),
        ("one<br>two<br />three", "one\ntwo\nthree"),
        ("Made of:<ul><li>Cotton</li><li>Wool.</li><li>Silk</li></ul>Soft", "Made of:\nCotton; Wool. Silk\nSoft"),
        ("<table><tr><td>Color</td><td>Red</td></tr><tr><td>Size</td><td>M</td></tr></table>", "Color; Red\nSize; M"),
        ("<P CLASS='a > b' title=\"c > d\">Mug</P>", "Mug"),
        ('<p title="5" tall">Mug</p>', "Mug"),
        ("Tom &amp; Jerry &#8211; &lt;p&gt;", "Tom & Jerry – <p>"),
        ("a<script>if (a < b) { x('</p>') }</script>b<style>p {}</style>c", "abc"),
        ("a<SCRIPT src=x>never closed <p>b</p>", "a"),
        ("a<!-- <p>not</p> shown -->b<!-- open <b>c</b>", "ab open c"),
        ("<!DOCTYPE html><?xml version='1.0'?><p>Mug</p><![endif]>", "Mug"),
        ("sup<sup>er</sup> mug", "super mug"),
        ("<p>1 < 2</p>", "1 < 2"),
        ("<p></p> <div> </div>", ""),
    ],
)
def test_html_is_read_as_lines_of_text(html: str, text: str) -> None:
    assert html_to_text(html) == text


def test_entities_of_thousands_of_digits_are_replaced() -> None:
    assert html_to_text("<p>a&#" + "9" * 10_000 + ";b</p>") == "a\ufffdb"


@pytest.mark.parametrize("part", ["<", "<a ", "<a a='", '<a "', "<!--", "</", "<![", "<![foo[", "&", "<script>", "<p>"])
def test_long_broken_html_is_read(part: str) -> None:
    html = part * (200_000 // len(part))
    assert len(html_to_text(html)) <= len(html)


@given(st.text(alphabet="<>/!-?&;#\"' \npbliscrt[]x9", max_size=60))
def test_no_html_raises_an_error_or_grows(html: str) -> None:
    assert len(html_to_text(html)) <= len(html)


def test_a_text_is_cut_at_the_maximum() -> None:
    assert html_to_text("a" * (MAX_CHARACTERS + 5)) == "a" * MAX_CHARACTERS


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<p>Mug</p>", True),
        ("a<br/>b", True),
        ("<LI class='x'>", True),
        ("a < b > c", False),
        ("<product>", False),
        ("<p", False),
    ],
)
def test_usual_tags_are_found(text: str, found: bool) -> None:
    assert has_tags(text) is found
