"""Image references in the cells of a catalogue."""

from __future__ import annotations

import json

import numpy as np
import pytest

from caslie_ray.catalogue._cells import native
from caslie_ray.catalogue._image_cells import image_references, split_references
from caslie_ray.catalogue.formats import FORMATS
from caslie_ray.tasks import UnreadableImage

ALL = ",;|\n"
DATA = "data:image/png;base64,iVBORw0KGgo="


@pytest.mark.parametrize(
    ("text", "references"),
    [
        ("a.jpg", ["a.jpg"]),
        ("a.jpg,b.PNG", ["a.jpg", "b.PNG"]),
        ("a.jpg, b.jpg ,c.webp", ["a.jpg", "b.jpg", "c.webp"]),
        ("a.jpg;b.jpg|c.jpg\nd.jpg", ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]),
        ("img/1|img/2", ["img/1", "img/2"]),
        ("a.jpg,,b.jpg,", ["a.jpg", "b.jpg"]),
        (
            "https://cdn.example/w_300,h_300/a.jpg, https://cdn.example/b.jpg",
            ["https://cdn.example/w_300,h_300/a.jpg", "https://cdn.example/b.jpg"],
        ),
        ("https://cdn.example/w_300,h_300/a.jpg", ["https://cdn.example/w_300,h_300/a.jpg"]),
        ("https://cdn.example/1,https://cdn.example/2", ["https://cdn.example/1", "https://cdn.example/2"]),
        ("https://cdn.example/1, img/b.jpg", ["https://cdn.example/1", "img/b.jpg"]),
        ("https://cdn.example/a.jpg?w=1&amp;h=2", ["https://cdn.example/a.jpg?w=1&amp;h=2"]),
        ("https://cdn.example/a.jpg?v=1,b.jpg?v=2", ["https://cdn.example/a.jpg?v=1", "b.jpg?v=2"]),
        ("s3://shop/a.jpg;s3://shop/b.jpg", ["s3://shop/a.jpg", "s3://shop/b.jpg"]),
        (DATA, [DATA]),
        (f"{DATA},{DATA}|https://cdn.example/a.jpg", [DATA, DATA, "https://cdn.example/a.jpg"]),
        (f"a.jpg, {DATA}", ["a.jpg", DATA]),
        ("data:image/svg+xml,<svg>|,a.png</svg>", ["data:image/svg+xml,<svg>|,a.png</svg>"]),
        ("iVBORw0K\nGgoAAAAN\nSUhEUgAA", ["iVBORw0K\nGgoAAAAN\nSUhEUgAA"]),
        (" , ;", []),
        ("", []),
    ],
)
def test_a_text_is_split_between_references(text: str, references: list[str]) -> None:
    assert split_references(text, ALL) == references


def test_a_format_without_separators_has_one_reference_per_cell() -> None:
    assert split_references(" a.jpg,b.jpg ", "") == ["a.jpg,b.jpg"]


def test_a_cell_may_have_twenty_images() -> None:
    paths = [f"img/{number}.jpg" for number in range(20)]
    for cell in (", ".join(paths), paths, json.dumps(paths), str(paths), np.array(paths)):
        assert image_references(native(cell), FORMATS["plain"]) == paths


@pytest.mark.parametrize(
    ("cell", "references"),
    [
        ({"bytes": b"\xff\xd8", "path": "a.jpg"}, [b"\xff\xd8"]),
        ({"bytes": None, "path": "a.jpg"}, ["a.jpg"]),
        (b"\xff\xd8", [b"\xff\xd8"]),
        ([["a.jpg"], ["b.jpg", "c.jpg"]], ["a.jpg", "b.jpg", "c.jpg"]),
        (["a.jpg, b.jpg", {"url": "c.jpg"}], ["a.jpg", "b.jpg", "c.jpg"]),
        ({"src": ["a.jpg", "b.jpg"]}, ["a.jpg", "b.jpg"]),
        ('{"url": "a.jpg"}', ["a.jpg"]),
        (None, []),
        (float("nan"), []),
        ([], []),
        ([None, ""], []),
    ],
)
def test_objects_lists_and_bytes_are_read(cell: object, references: list[object]) -> None:
    assert image_references(native(cell), FORMATS["plain"]) == references


def test_an_object_that_cannot_be_read_stays_in_its_place() -> None:
    first, second, third = image_references(native(["a.jpg", {"size": 3}, "b.jpg"]), FORMATS["plain"])
    assert (first, third) == ("a.jpg", "b.jpg")
    assert isinstance(second, UnreadableImage)
    assert second.reason.startswith("unsupported image object: ")


def test_a_cell_that_cannot_be_decoded_is_an_unreadable_image() -> None:
    for cell in ('["a.jpg", ', {"url": ["a.jpg"], "path": ["a.jpg", "b.jpg"]}):
        (found,) = image_references(native(cell), FORMATS["plain"])
        assert isinstance(found, UnreadableImage)
        assert "images c" in found.reason


def test_the_main_variant_of_amazon_is_first_and_the_best_quality_is_taken() -> None:
    objects: list[dict[str, str | None]] = [
        {"hi_res": None, "large": "1-large.jpg", "thumb": "1-thumb.jpg", "variant": "PT01"},
        {"hi_res": "2-high.jpg", "large": "2-large.jpg", "thumb": "2-thumb.jpg", "variant": "MAIN"},
        {"hi_res": "3-high.jpg", "large": "3-large.jpg", "thumb": "3-thumb.jpg", "variant": "PT02"},
    ]
    columns = {key: np.array([str(item[key] or "") for item in objects]) for key in objects[0]}
    for cell in (objects, columns, json.dumps(objects)):
        found = image_references(native(cell), FORMATS["amazon_reviews_2023"])
        assert found == ["2-high.jpg", "1-large.jpg", "3-high.jpg"]


def test_paths_of_magento_are_relative_and_its_mark_for_no_image_is_none() -> None:
    magento = FORMATS["magento"]
    assert image_references("/m/u/mug.jpg,/m/u/side.jpg", magento) == ["m/u/mug.jpg", "m/u/side.jpg"]
    assert image_references("no_selection", magento) == []
    assert image_references("/m/u/mug.jpg|//cdn.example/a.jpg", magento) == ["m/u/mug.jpg", "//cdn.example/a.jpg"]
    assert image_references("/m/u/mug.jpg", FORMATS["plain"]) == ["/m/u/mug.jpg"]
