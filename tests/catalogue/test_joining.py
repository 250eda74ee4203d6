"""Joins the rows of a catalogue to products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, repeat

import numpy as np
import pytest

from caslie_ray.catalogue.formats import FORMATS, detect
from caslie_ray.catalogue.joining import MAX_IMAGES, MAX_ROWS, ROW_NUMBER_ID, Joiner
from caslie_ray.catalogue.product import Product, RowProblem
from caslie_ray.profiles import SourceKeys
from caslie_ray.tasks import UnreadableImage

Row = Mapping[str, object]


def join(rows: Sequence[Row], name: str | None = None, keys: SourceKeys | None = None) -> list[Product | RowProblem]:
    keys = keys or SourceKeys()
    found = FORMATS[name] if name else detect(list(rows[0]), keys)
    assert found is not None
    joiner = Joiner(found, keys)
    added = [each for number, row in enumerate(rows, 1) for each in joiner.add(number, row)]
    return [*added, *joiner.end()]


def products(rows: Sequence[Row], name: str | None = None, keys: SourceKeys | None = None) -> list[Product]:
    found = join(rows, name, keys)
    return [each for each in found if isinstance(each, Product)]


def one(row: Row, name: str | None = None, keys: SourceKeys | None = None) -> Product:
    (found,) = products([row], name, keys)
    return found


def table(header: str, *rows: str) -> list[dict[str, object]]:
    """A table whose cells are separated by bars."""
    return [dict(zip(header.split("|"), row.split("|"), strict=True)) for row in rows]


def test_rows_of_a_shopify_export_are_joined_and_their_images_ordered() -> None:
    rows = table(
        "Handle|Title|Body (HTML)|Vendor|Product Category|Type|Image Src|Image Position|Variant Image|Variant Price",
        "mug|Red mug|<p>A <b>mug</b>.</p><ul><li>0.3 l</li><li>Red</li></ul>|Mugs Inc|Home > Mugs|Mug|b.jpg|2|v.jpg|5",
        "mug||||||c.jpg|10||",
        "mug||||||a.jpg|1|b.jpg|",
        "mug||||||a.jpg|||",
        "lamp|Lamp|Plain text & more||||l.jpg|1||7",
    )
    mug, lamp = products(rows)
    assert mug == Product(
        "mug",
        (
            *(("title", "Red mug"), ("description", "A mug.\n0.3 l; Red"), ("category", "Home > Mugs")),
            *(("brand", "Mugs Inc"), ("type", "Mug"), ("variant_price", "5")),
        ),
        ("a.jpg", "b.jpg", "c.jpg", "v.jpg"),
        1,
    )
    assert (lamp.product_id, lamp.number, lamp.images) == ("lamp", 5, ("l.jpg",))
    assert dict(lamp.texts) == {"title": "Lamp", "description": "Plain text & more", "variant_price": "7"}


def test_the_new_column_names_of_shopify_are_read() -> None:
    rows = table(
        "Title|URL handle|Description|Vendor|Product category|Product image URL|Image position|Variant image URL",
        "Red mug|mug|<p>A mug.</p>|Mugs Inc|Home|b,1.jpg|2|",
        "|mug||||a.jpg|1|v.jpg",
    )
    mug = one(rows[0]), *products(rows)
    assert mug[0].images == ("b,1.jpg",)
    assert mug[1].images == ("a.jpg", "b,1.jpg", "v.jpg")
    assert dict(mug[1].texts) == {
        "title": "Red mug",
        "description": "A mug.",
        "category": "Home",
        "brand": "Mugs Inc",
    }


def test_each_row_of_woocommerce_is_a_product_by_sku_or_else_by_id() -> None:
    rows = table(
        "ID|Type|SKU|Name|Short description|Description|Categories|Images|Parent|Attribute 1 name|Attribute 1 value(s)",
        r"7|variable|M-1|Mug|<p>Short</p>|<p>A mug</p>\nfrom \\new York|Home > Mugs|a.jpg, b.jpg||Color|Red, Blue",
        "8|variation||Mug - Red|||||M-1|Color|Red",
    )
    mug, variation = products(rows)
    assert mug == Product(
        "M-1",
        (
            *(("title", "Mug"), ("description", "A mug\nfrom \\new York"), ("category", "Home > Mugs"), ("id", "7")),
            *(("type", "variable"), ("short_description", "Short")),
            *(("attribute_1_name", "Color"), ("attribute_1_value_s", "Red, Blue")),
        ),
        ("a.jpg", "b.jpg"),
        1,
    )
    assert (variation.product_id, variation.images, variation.number) == ("8", (), 2)


def test_store_views_of_magento_are_joined_and_the_first_text_counts() -> None:
    rows = table(
        "sku|store_view_code|name|description|short_description|categories|base_image|additional_images",
        "M-1||Mug||<p>Short</p>|Default Category/Home|/m/u/mug.jpg|/m/u/mug.jpg,/m/u/side.jpg",
        "M-1|de|Tasse|Eine Tasse||||/m/u/de.jpg",
        "M-2||Lamp||||no_selection|",
    )
    mug, lamp = products(rows)
    assert mug.images == ("m/u/mug.jpg", "m/u/side.jpg", "m/u/de.jpg")
    assert dict(mug.texts) == {
        "title": "Mug",
        "description": "Eine Tasse",
        "category": "Default Category/Home",
        "short_description": "Short",
        "store_view_code": "de",
    }
    assert (lamp.product_id, lamp.images) == ("M-2", ())


def test_items_of_a_product_feed_may_have_lists() -> None:
    feed = one(
        {
            "g:id": "M-1",
            "title": "Mug",
            "g:description": "&lt;3 <p>A mug</p>",
            "g:image_link": "a.jpg",
            "g:additional_image_link": ["b.jpg", "c.jpg"],
            "g:product_type": ["Home > Mugs", "Gifts"],
        }
    )
    assert feed.images == ("a.jpg", "b.jpg", "c.jpg")
    assert dict(feed.texts) == {"title": "Mug", "description": "<3\nA mug", "category": "Home > Mugs, Gifts"}
    row = table("id|title|image_link|additional_image_link", "M-1|Mug|a.jpg|b.jpg,https://cdn.example/w_1,h_2/c.jpg")[0]
    assert one(row).images == ("a.jpg", "b.jpg", "https://cdn.example/w_1,h_2/c.jpg")


def test_products_of_amazon_are_read_from_parquet() -> None:
    struct = {
        "hi_res": np.array([None, "main.jpg"], dtype=object),
        "large": np.array(["side.jpg", "main-large.jpg"], dtype=object),
        "variant": np.array(["PT01", "MAIN"], dtype=object),
    }
    mug = one(
        {
            "main_category": "Home",
            "title": "Mug",
            "average_rating": np.float64(4.0),
            "parent_asin": "B01",
            "features": np.array([], dtype=object),
            "description": np.array(["A mug.", "Red."], dtype=object),
            "images": struct,
            "store": "Mugs Inc",
            "categories": np.array(["Home", "Mugs"]),
            "price": None,
            "details": '{"Color": "Red"}',
            "videos": {"title": np.array([])},
            "bought_together": None,
        }
    )
    assert mug == Product(
        "B01",
        (
            *(("title", "Mug"), ("description", "A mug. Red."), ("category", "Home > Mugs"), ("brand", "Mugs Inc")),
            *(("main_category", "Home"), ("average_rating", "4"), ("details", "Color: Red")),
        ),
        ("main.jpg", "side.jpg"),
        1,
    )


def test_texts_of_abo_are_english_if_they_can_be() -> None:
    row = {
        "item_id": "B01",
        "item_name": [{"language_tag": "de_DE", "value": "Tasse"}, {"language_tag": "en_IN", "value": "Mug"}],
        "bullet_point": [{"language_tag": "en_US", "value": "Red"}, {"language_tag": "en_US", "value": "0.3 l"}],
        "product_type": [{"value": "MUG"}],
        "main_image_id": "71abc",
        "other_image_id": ["71def", "71abc"],
    }
    mug = one(row)
    assert mug.texts == (("title", "Mug"), ("description", "Red, 0.3 l"), ("category", "MUG"))
    assert mug.images == ("71abc", "71def")
    assert mug.notes[0].startswith("image ids as references: ")


def test_examples_of_esci_are_identified_by_product_and_query_without_their_own_id() -> None:
    row = {
        "query": "red mug",
        "product_id": "B01",
        "product_title": "Mug",
        "product_bullet_point": "<li>Red</li>",
        "product_brand": "Mugs Inc",
        "esci_label": "E",
        "image_url": "https://cdn.example/a.jpg",
    }
    mug = one(row)
    assert mug.product_id == "B01:red mug"
    assert dict(mug.texts) == {
        "title": "Mug",
        "description": "Red",
        "brand": "Mugs Inc",
        "query": "red mug",
        "product_id": "B01",
        "esci_label": "E",
    }
    assert one({"example_id": 12.0, **row}).product_id == "12"
    assert one({**row, "query": None}).product_id == "B01"


def test_rows_of_the_shopify_benchmark_have_their_numbers_as_ids() -> None:
    row = {
        "product_title": "Mug",
        "product_description": "Red",
        "product_image": {"bytes": b"\xff\xd8", "path": None},
        "potential_product_categories": ["Home > Mugs", "Home > Cups"],
        "ground_truth_category": "Home > Mugs",
        "ground_truth_is_secondhand": False,
    }
    first, second = products([row, row])
    assert (first.product_id, second.product_id) == ("1", "2")
    assert first.images == (b"\xff\xd8",)
    assert first.notes == (ROW_NUMBER_ID,)
    assert dict(first.texts) == {
        "title": "Mug",
        "description": "Red",
        "potential_product_categories": "Home > Mugs, Home > Cups",
        "ground_truth_category": "Home > Mugs",
        "ground_truth_is_secondhand": "false",
    }
    assert one({"id": 7, **row}).product_id == "7"
    named = one({"ref": "x", **row}, keys=SourceKeys(id="ref"))
    assert (named.product_id, named.notes) == ("x", ())


def test_a_table_with_names_of_its_own_is_read_by_the_keys_of_the_profile() -> None:
    keys = SourceKeys(id="Artikelnummer", images="Bild", fields={"Bezeichnung": "title", "Farbe": "color"})
    rows = table("Artikelnummer;Bezeichnung;Farbe;Bild".replace(";", "|"), "1|Tasse|rot|a.jpg", "2|Lampe|blau|b.jpg")
    cup, lamp = products(rows, keys=keys)
    assert cup == Product("1", (("title", "Tasse"), ("color", "rot")), ("a.jpg",), 1)
    assert lamp.product_id == "2"


def test_a_row_per_image_is_one_product_in_a_plain_table() -> None:
    rows = table("sku|title|image|Image 2", "1|Mug|a.jpg|b.jpg", "1|Mug|c.jpg|a.jpg", "2|Lamp|d.jpg|")
    mug, lamp = products(rows)
    assert (mug.images, lamp.images) == (("a.jpg", "c.jpg", "b.jpg"), ("d.jpg",))
    assert lamp.number == 3


def test_a_title_of_another_column_does_not_hide_one_of_that_name() -> None:
    keys = SourceKeys(fields={"short": "title"})
    mug = one({"id": 1, "short": "Mug", "title": "Red mug", "image": "a.jpg"}, keys=keys)
    assert mug.texts == (("title", "Mug"), ("title_2", "Red mug"))


def test_columns_with_one_name_are_both_kept() -> None:
    mug = one({"id": 1, "image": "a.jpg", "Color": "red", "color ": "rouge"})
    assert mug.texts == (("color", "red"), ("color_2", "rouge"))


def test_html_in_a_description_is_text_in_every_format() -> None:
    row = {"id": 1, "image": "a.jpg", "title": "<b>Mug</b>", "description": "<p>A &lt; B</p>", "notes": "<p>as is</p>"}
    assert dict(one(row).texts) == {"title": "<b>Mug</b>", "description": "A < B", "notes": "<p>as is</p>"}
    assert one({**row, "description": "A &lt; <product>"}).texts[1] == ("description", "A &lt; <product>")


def test_html_beyond_the_maximum_is_cut_with_a_note() -> None:
    mug = one({"id": 1, "image": "a.jpg", "description": "<p>" + "a" * 2_000_000})
    assert len(mug.texts[0][1]) == 2_000_000 - 3
    assert mug.notes[0].startswith("long HTML: ")


def test_an_unreadable_image_stays_between_the_others() -> None:
    mug = one({"id": 1, "image": ["a.jpg", {"size": 1}, "b.jpg"]})
    assert [type(image) for image in mug.images] == [str, UnreadableImage, str]


def test_binary_columns_are_left_out_with_a_note() -> None:
    mug = one({"id": 1, "image": "a.jpg", "preview": {"bytes": b"\xff\xd8", "path": None}, "raw": b"\x00\xff"})
    assert mug.texts == ()
    assert [note.split(":")[0] for note in mug.notes] == ["binary column left out"]


def test_rows_without_an_id_are_problems_and_join_no_product() -> None:
    rows = table(
        "Handle|Title|Image Src",
        *("mug|Mug|a.jpg", "|Lamp|l.jpg", "||l2.jpg", "mug||b.jpg", "nan|Text nan|n.jpg"),
    )
    rows.append({**rows[0], "Handle": float("nan")})
    lamp, more, mug, last, text = join(rows)
    assert isinstance(lamp, RowProblem)
    assert lamp.reason == (
        "product without an id: handle or url_handle is empty or missing; name the column with ingest.keys.id;"
        " columns are Handle, Title, Image Src"
    )
    assert (more, last) == (RowProblem(3, lamp.reason), RowProblem(6, lamp.reason))
    assert isinstance(mug, Product)
    assert (mug.images, mug.number) == (("a.jpg", "b.jpg"), 1)
    assert isinstance(text, Product)
    assert text.product_id == "nan"


def test_an_id_that_is_too_long_is_a_problem() -> None:
    found = join([{"id": "i" * 1_001, "image": "a.jpg"}, {"id": "i" * 1_000, "image": "a.jpg"}])
    assert isinstance(found[0], RowProblem)
    assert found[0].reason.startswith("product id too long: 1,001 characters")
    assert isinstance(found[1], Product)


def test_rows_are_joined_by_the_handle_where_the_profile_names_another_id() -> None:
    rows = table("Handle|Title|SKU|Image Src", "mug|Mug||a.jpg", "mug||M-1|b.jpg", "mug||M-2|", "lamp|Lamp||l.jpg")
    mug, lamp = join(rows, keys=SourceKeys(id="SKU"))
    assert isinstance(mug, Product)
    assert (mug.product_id, mug.images, len(mug.notes)) == ("M-1", ("a.jpg", "b.jpg"), 1)
    assert isinstance(lamp, RowProblem)
    assert (lamp.number, lamp.reason.split(" is ")[0]) == (4, "product without an id: sku")


def test_a_product_keeps_at_most_its_first_images() -> None:
    rows = [{"id": 1, "image": [f"{row}-{n}.jpg" for n in range(600)]} for row in range(2)]
    problem, mug = join(rows)
    assert isinstance(problem, RowProblem)
    assert (problem.number, problem.reason.split(":")[0]) == (2, "too many images for one product")
    assert isinstance(mug, Product)
    assert len(mug.images) == MAX_IMAGES
    assert mug.images[-1] == "1-399.jpg"


def test_rows_beyond_the_maximum_of_one_product_are_problems() -> None:
    joiner = Joiner(FORMATS["plain"], SourceKeys())
    rows = chain(repeat({"id": 1, "image": "a.jpg"}, MAX_ROWS + 2), [{"id": 2, "image": "b.jpg"}])
    found = [each for number, row in enumerate(rows, 1) for each in joiner.add(number, row)]
    assert [each.number for each in found if isinstance(each, RowProblem)] == [MAX_ROWS + 1, MAX_ROWS + 2]
    assert [each.number for each in (*found, *joiner.end()) if isinstance(each, Product)] == [1, MAX_ROWS + 3]


def test_the_rows_of_one_product_have_a_maximum_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("caslie_ray.catalogue._draft._SIZE", 100)
    rows = [{"id": 1, "image": bytes([255, row] * 40)} for row in range(3)]
    *problems, mug = join([*rows, {"id": 1, "image": "a.jpg"}])
    assert [each.number for each in problems if isinstance(each, RowProblem)] == [2, 3]
    assert isinstance(mug, Product)
    assert mug.images == (rows[0]["image"], "a.jpg")


def test_rows_may_have_different_columns() -> None:
    rows: list[Row] = [
        {"id": 1, "title": "Mug", "image": "a.jpg"},
        {"picture": "b.jpg", "sku": "2"},
        {"Name": "Lamp", "id": 3},
    ]
    mug, second, lamp = products(rows)
    assert (second.product_id, second.images) == ("2", ("b.jpg",))
    assert (lamp.texts, lamp.images) == ((("title", "Lamp"),), ())
    assert mug.texts == (("title", "Mug"),)


@pytest.mark.parametrize("name", FORMATS)
def test_odd_cells_raise_no_error(name: str) -> None:
    odd: list[object] = [
        *(None, float("nan"), True, -1, 10**400, "", " ", "[", "{'a': ", '{"a": [1]}', b"\xff", b"[1]", [], {}, [[[]]]),
        *([None, {"value": None}], {"bytes": None, "path": None}, {"variant": [1]}, np.array([np.nan]), object()),
        *('"' * 50, "data:", ",;|\n", "<p", "&#" + "9" * 5_000 + ";", {1: {2: {3: "x"}}}, np.datetime64("NaT")),
    ]
    format = FORMATS[name]
    columns = dict.fromkeys(
        [*chain(*format.ids), *chain(*format.texts.values()), *format.images, *format.spare_images, "image_position"]
    )
    rows = [dict.fromkeys(columns, cell) for cell in odd] + [{**dict.fromkeys(columns, cell), "id": 1} for cell in odd]
    found = join(rows, name)
    assert found
    for each in found:
        assert isinstance(each, RowProblem) or all(isinstance(part, str) for pair in each.texts for part in pair)
