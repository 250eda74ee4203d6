"""XML product feeds: which files are feeds, and how their items are read, whatever is wrong with some of them."""

from __future__ import annotations

import gzip
import io
import random
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from caslie_ray.dataset._feed import feed_format, read_feed
from caslie_ray.dataset._limits import DEFAULT, Limits
from caslie_ray.dataset._shapes import Damage, Found
from tests.dataset.sources import read, reviews, sentiment

SMALL = replace(DEFAULT, row_bytes=1 << 10, row_values=100, nesting=8)

RSS = """<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><title>Shop</title><link>https://a.example</link>
<item><g:id>1</g:id><title>Mug &amp; spoon</title><g:title>Mug &amp; spoon</g:title><g:description/>
  <g:image_link> https://a.example/1.jpg </g:image_link><g:additional_image_link>2.jpg</g:additional_image_link>
  <g:additional_image_link>3.jpg</g:additional_image_link><g:shipping><g:country>DE</g:country><g:price>1</g:price>
  </g:shipping><description><![CDATA[<p>Blue</p>]]></description><enclosure url="4.jpg" type="image/jpeg"/></item>
<!-- no item --><item id="7"><title>Bowl</title></item>
</channel></rss>"""

ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>Shop</title><link href="https://a.example"/>
<entry><title>Mug</title><link rel="self" href="https://a.example/1"/><link rel="image" href="https://a.example/1.jpg"/>
<content type="xhtml"><div xmlns="http://www.w3.org/1999/xhtml">A <b>blue</b>, new mug<ul><li>big</li><li>round</li>
</ul></div></content></entry></feed>"""


def feed(text: str | bytes, limits: Limits = DEFAULT) -> list[Found]:
    return list(read_feed(io.BytesIO(text if isinstance(text, bytes) else text.encode()), limits))


def values(text: str | bytes, limits: Limits = DEFAULT) -> list[object]:
    """The items, and the headings of the reasons of those that cannot be read."""
    found = feed(text, limits)
    assert [one.number for one in found] == list(range(1, len(found) + 1))
    return [one.value.reason.split(":")[0] if isinstance(one.value, Damage) else one.value for one in found]


def products(*items: str) -> str:
    return f"<products>{''.join(f'<product>{item}</product>' for item in items)}</products>"


def test_the_items_of_a_merchant_feed() -> None:
    assert feed_format(RSS.encode())
    assert values(RSS) == [
        {
            "id": "1",
            "title": "Mug & spoon",
            "description": ["", "<p>Blue</p>"],
            "image_link": "https://a.example/1.jpg",
            "additional_image_link": ["2.jpg", "3.jpg"],
            "shipping": {"country": "DE", "price": "1"},
            "enclosure": "4.jpg",
        },
        {"title": "Bowl"},
    ]


def test_the_entries_of_an_atom_feed() -> None:
    assert feed_format(ATOM.encode())
    assert values(ATOM) == [
        {
            "title": "Mug",
            "link": ["https://a.example/1", "https://a.example/1.jpg"],
            "content": {"div": "A blue, new mug big round"},
        }
    ]


@pytest.mark.parametrize("name", ["product", "Product", "offer", "SHOPITEM", "article"])
def test_the_products_of_a_plain_list(name: str) -> None:
    text = f"\n <list><info><by>me</by></info><{name}><a>1</a></{name}><{name}><a>2</a></{name}></list>"
    assert feed_format(text.encode())
    assert values(text) == [{"a": "1"}, {"a": "2"}]


def test_an_item_inside_of_an_item_is_part_of_it() -> None:
    assert values(products("<offer><item>1</item></offer>")) == [{"offer": {"item": "1"}}]


def test_the_own_text_of_an_item_is_kept() -> None:
    assert values(products("note<a>1</a>")) == [{"a": "1", "text": "note"}]


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE html><html><body><item>a</item></body></html>",
        "<html><body><item>a</item><item>b</item></body></html>",
        "<div><p><b>a</b></p><p><b>b</b></p></div>",
        '<svg xmlns="http://www.w3.org/2000/svg"><g><path d=""/></g><g><path d=""/></g></svg>',
        "<config><database><host>a</host></database></config>",
        "<list><a>1</a><a>2</a></list>",
        "<rss><channel><title>Shop</title></channel></rss>",
        "a,b\n1,<item>\n",
        '[{"a": "<item>"}]',
        "",
    ],
)
def test_other_files_are_no_feeds(text: str) -> None:
    assert not feed_format(text.encode())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "windows-1252", "iso-8859-1"])
def test_feeds_in_the_encoding_that_they_name(encoding: str) -> None:
    name = encoding.removesuffix("-sig")
    data = f'<?xml version="1.0" encoding="{name}"?>{products("<a>Größe paßt</a>")}'.encode(encoding)
    assert feed_format(data)
    assert values(data) == [{"a": "Größe paßt"}]


@pytest.mark.parametrize("name", ["no-such-code", "shift_jis"])
def test_an_encoding_that_is_not_known_is_one_reject(name: str) -> None:
    text = f'<?xml version="1.0" encoding="{name}"?>{products("<a>1</a>")}'
    assert values(text) == ["unreadable encoding"]


@pytest.mark.parametrize(
    "declaration",
    [
        '<!DOCTYPE products SYSTEM "shops.dtd">',
        '<!DOCTYPE products [<!ENTITY a "b">]>',
        '<!DOCTYPE products [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE products [<!ENTITY % a SYSTEM "http://127.0.0.1/a"> %a;]>',
    ],
)
def test_document_types_and_entities_are_refused(declaration: str) -> None:
    text = f"{declaration}{products('<a>&a;</a>')}"
    assert feed_format(text.encode())
    assert values(text) == ["refused XML"]


def test_a_malformed_feed_keeps_the_items_before_the_error() -> None:
    text = f"\n\n{products('<a>1</a>', '<a>2</a>')[:-11]}\n<product><a>&nbsp;</a></product></products>"
    first, second, last = feed(text)
    assert (first.value, second.value) == ({"a": "1"}, {"a": "2"})
    assert isinstance(last.value, Damage)
    assert last.value.reason.startswith("malformed XML: undefined entity")
    assert "line 4" in last.value.reason
    assert not last.value.limited


def test_a_cut_feed_keeps_the_items_before_the_cut(tmp_path: Path) -> None:
    assert values(products("<a>1</a>", "<a>2</a>")[:-20]) == [{"a": "1"}, "truncated file"]
    noise = [f"<a>{random.Random(number).randbytes(40).hex()}</a>" for number in range(50)]
    packed = gzip.compress(products(*noise).encode())
    *before, last = read(tmp_path / "a.xml.gz", packed[: len(packed) // 2])
    assert len(before) > 5
    assert all(record.row for record in before)
    assert (last.reason or "").startswith("broken file: ")


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        (f"<a>{'x' * 3000}</a>", "item too long"),
        ("<a>" + "<b>x</b>" * 200 + "</a>", "row too large"),
        ("<a>" * 20 + "x" + "</a>" * 20, "item nested too deeply"),
        (f'<a href="{"x" * 3000}"/>', "item too long"),
    ],
)
def test_an_item_over_a_limit_costs_only_itself(item: str, reason: str) -> None:
    found = feed(products("<a>1</a>", item, "<a>2</a>"), SMALL)
    assert (found[0].value, found[2].value) == ({"a": "1"}, {"a": "2"})
    damage = found[1].value
    assert isinstance(damage, Damage)
    assert damage.limited
    assert damage.reason.startswith(f"{reason}: ")
    assert "ingest.max_" in damage.reason


def test_an_item_over_the_limit_is_not_kept_in_memory() -> None:
    large = products(f"<a>{'x' * (30 << 20)}</a>", "<a>1</a>").encode()
    stream = io.BytesIO(large)
    tracemalloc.start()
    try:
        found = list(read_feed(stream, replace(DEFAULT, row_bytes=1 << 20)))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert isinstance(found[0].value, Damage)
    assert found[1].value == {"a": "1"}


@pytest.mark.parametrize(
    ("inside", "reason"),
    [
        ("".join(f"<a{number}/>" for number in range(12_000)), "too many names"),
        ("".join(f'<a b{number}="1"/>' for number in range(12_000)), "too many names"),
        ("".join(f'<a xmlns:b{number}="c"/>' for number in range(12_000)), "too many names"),
        ("".join(f"<{letter * 40_000}/>" for letter in "abc"), "too many names"),
        ("<a>" * 12_000, "too deep"),
        (f"<a>1</a><!-- {'x' * 400_000} -->", "item too long"),
        (f'<a b="{"x" * 400_000}"/>', "item too long"),
    ],
)
def test_what_the_parser_would_keep_in_memory_is_limited(inside: str, reason: str) -> None:
    limits = replace(DEFAULT, row_bytes=100_000)
    *_, last = feed(products("<c>1</c>", inside, "<c>2</c>") + "<!-- -->" * 100_000, limits)
    assert isinstance(last.value, Damage)
    assert last.value.limited
    assert last.value.reason.startswith(reason)


def test_rows_of_a_data_set_as_a_feed(tmp_path: Path) -> None:
    def item(number: int) -> str:
        return "".join(f"<{key}>{value}</{key}>" for key, value in sentiment(number).items())

    data = products(*map(item, range(3))).encode()
    for name, content in (("a.xml", data), ("a.xml.gz", gzip.compress(data)), ("a.json", data)):
        records = read(tmp_path / name, content)
        assert reviews(records) == ["Review 0.", "Review 1.", "Review 2."]
        assert records[1].location == f"{tmp_path / name}:2"
