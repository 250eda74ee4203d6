"""The format of a catalogue, from its header or by its name."""

from __future__ import annotations

import re

import pytest

from caslie_ray.catalogue.formats import FORMATS, detect, format_named
from caslie_ray.errors import SourceError
from caslie_ray.profiles import IngestSettings, SourceKeys

KEYS = SourceKeys()

HEADERS = {
    "shopify": [
        *("Handle", "Title", "Body (HTML)", "Vendor", "Product Category", "Type", "Tags", "Option1 Name"),
        *("Variant SKU", "Image Src", "Image Position", "Image Alt Text", "Variant Image"),
    ],
    "woocommerce": [
        *("\ufeffID", "Type", "SKU", "Name", "Published", "Short description", "Description", "Categories", "Tags"),
        *("Images", "Parent", "Attribute 1 name", "Attribute 1 value(s)"),
    ],
    "magento": [
        *("sku", "store_view_code", "product_type", "categories", "name", "description", "short_description"),
        *("base_image", "additional_images", "additional_image_labels"),
    ],
    "merchant_center": [
        *("id", "title", "description", "link", "image_link", "additional_image_link", "product_type", "brand"),
    ],
    "amazon_reviews_2023": [
        *("main_category", "title", "features", "description", "images", "store", "categories", "details"),
        *("parent_asin", "bought_together"),
    ],
    "abo": [
        *("item_id", "item_name", "bullet_point", "product_type", "brand", "main_image_id", "other_image_id"),
    ],
    "esci": [
        *("example_id", "query", "query_id", "product_id", "product_locale", "esci_label", "product_title"),
        *("product_description", "product_bullet_point", "product_brand", "product_color", "image_url"),
    ],
    "shopify_product_catalogue": [
        *("product_title", "product_description", "product_image", "potential_product_categories"),
        *("ground_truth_category", "ground_truth_brand", "ground_truth_is_secondhand"),
    ],
    "plain": ["id", "name", "price", "image"],
}


def name_of(columns: list[str], keys: SourceKeys = KEYS) -> str | None:
    found = detect(columns, keys)
    return found.name if found else None


def test_the_formats_are_those_of_the_profile() -> None:
    names = set(IngestSettings.model_json_schema()["properties"]["format"]["enum"])
    assert set(FORMATS) == set(HEADERS) == names - {"auto", "mmecinstruct"}


@pytest.mark.parametrize("name", HEADERS)
def test_a_format_is_detected_by_its_header(name: str) -> None:
    assert name_of(HEADERS[name]) == name
    assert name_of([column.upper() for column in reversed(HEADERS[name])]) == name
    assert format_named(name, HEADERS[name], KEYS).name == name


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (["Title", "URL handle", "Description", "Vendor", "Product image URL", "Image position"], "shopify"),
        (["g:id", "title", "g:image_link"], "merchant_center"),
        (["image link", "ID", "Title"], "merchant_center"),
        (["product_id", "product_title", "product_locale", "image_url"], "esci"),
        (["id", "gender", "masterCategory", "productDisplayName", "image"], "plain"),
        (["name", "picture"], "plain"),
        (["sku", "Image 1", "Image 2"], "plain"),
        (["sku", "file_name"], "plain"),
        (["item_id", "title", "image_url", "options"], "plain"),
    ],
)
def test_other_spellings_and_fewer_columns_are_detected(columns: list[str], name: str) -> None:
    assert name_of(columns) == name


@pytest.mark.parametrize(
    "columns",
    [
        ["task", "id", "image", "title"],
        ["Task", *HEADERS["shopify"]],
        ["task_name", "id", "image"],
        ["instruction", "input", "options", "output", "images", "id"],
        ["input", "output", "image", "id"],
        ["id", "title", "price"],
        ["image", "price"],
        ["Artikelnummer", "Bezeichnung", "Warengruppe", "Bild"],
        ["product_id", "product_title", "product_locale"],
        [],
    ],
)
def test_other_sources_are_no_catalogues(columns: list[str]) -> None:
    assert detect(columns, KEYS) is None


def test_columns_of_tasks_are_known_by_the_names_that_the_profile_gives_them() -> None:
    columns = ["Aufgabe", "id", "title", "image", "Frage", "Antwort"]
    assert name_of(columns) == "plain"
    assert detect(columns, SourceKeys(task="Aufgabe")) is None
    assert detect(columns, SourceKeys(input="Frage", output="Antwort")) is None


def test_columns_that_the_profile_names_make_a_table_a_catalogue() -> None:
    columns = ["Artikelnummer", "Bezeichnung", "Bild 1", "Bild 2"]
    keys = SourceKeys(id="Artikelnummer", images="Bild", fields={"Bezeichnung": "title"})
    found = detect(columns, keys)
    assert found is not None
    assert found == format_named("plain", columns, keys)
    assert found.ids == (("artikelnummer",),)
    assert found.texts["title"][0] == "bezeichnung"
    assert list(found.image_columns(["bild_1", "bild_2"])) == ["bild_1", "bild_2"]


def test_named_columns_that_a_source_lacks_change_nothing() -> None:
    keys = SourceKeys(id="Artikelnummer", images="Bild", fields={"Bezeichnung": "title"})
    assert detect(HEADERS["shopify"], keys) == FORMATS["shopify"]


def test_a_column_named_by_the_profile_is_taken_from_its_usual_text() -> None:
    found = format_named("plain", ["id", "image", "title", "name"], SourceKeys(fields={"name": "Brand", "ean": "x"}))
    assert found.texts["brand"][0] == "name"
    assert "name" not in found.texts["title"]
    assert "x" not in found.texts


def test_default_keys_do_not_replace_the_id_of_a_format() -> None:
    assert format_named("woocommerce", HEADERS["woocommerce"], KEYS).ids[0] == ("sku",)
    assert format_named("woocommerce", HEADERS["woocommerce"], SourceKeys(id="ID")).ids == (("id",),)


def test_a_named_format_without_its_columns_is_refused_with_those_there_are() -> None:
    with pytest.raises(SourceError) as error:
        format_named("shopify", ["Artikel", "Bild (groß)"], KEYS)
    message = str(error.value)
    assert message.startswith("columns are missing: the format shopify needs a column of an id (handle or url_handle)")
    assert "ingest.keys.id" in message
    assert "images (image_src or product_image_url" in message
    assert "columns are Artikel, Bild (groß);" in message


def test_a_named_format_is_refused_for_its_images_alone() -> None:
    with pytest.raises(SourceError, match="needs a column of images") as error:
        format_named("magento", ["sku", "name"], KEYS)
    assert "an id" not in str(error.value)
    assert format_named("magento", ["sku", "Foto"], SourceKeys(images="Foto")).images == ("foto",)


def test_a_long_list_of_columns_is_cut() -> None:
    with pytest.raises(SourceError) as error:
        format_named("shopify", [f"column {number}" for number in range(5_000)], KEYS)
    assert len(str(error.value)) < 1_000


def test_rows_without_ids_are_a_format_of_their_own() -> None:
    assert format_named("shopify_product_catalogue", ["product_title", "product_image"], KEYS).row_numbers


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(
        SourceError, match="unknown format: mmecinstruct is no format of catalogues; use one of shopify"
    ):
        format_named("mmecinstruct", ["id", "image"], KEYS)


def test_numbered_columns_of_images_are_in_order() -> None:
    plain = FORMATS["plain"]
    names = ["image10", "images_0", "image_2", "title_1", "image", "path"]
    assert list(plain.image_columns(names)) == ["image", "image_2", "image10", "images_0"]
    assert list(plain.image_columns(["path", "title"])) == ["path"]


def test_all_names_of_formats_are_slots_of_templates() -> None:
    for each in FORMATS.values():
        columns = [column for columns in (*each.ids, *each.texts.values(), each.images) for column in columns]
        columns += [*each.texts, *each.spare_images, *each.html, *each.group, *each.levels]
        assert {column for column in columns if not re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*", column)} == set()
