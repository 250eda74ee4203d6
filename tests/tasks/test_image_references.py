"""Image references in the objects of shops and data sets."""

from __future__ import annotations

import json

import pytest

from caslie_ray.tasks import RowError, UnreadableImage
from tests.tasks.records import sample


@pytest.mark.parametrize(
    "cell",
    [
        [{"src": "p.jpg", "position": 1}],
        [{"large": "p.jpg", "hi_res": None, "variant": "MAIN"}],
        {"large": ["p.jpg"], "hi_res": [None], "variant": ["MAIN"]},
        [{"type": "image_url", "image_url": {"url": "p.jpg"}}],
        {"contentUrl": "p.jpg", "@type": "ImageObject"},
        {"thumb": "small.jpg", "Hi-Res": "p.jpg", "large": "large.jpg"},
        {"hi_res": ["p.jpg"], "large": ["large.jpg"]},
        {"image": {"path": "p.jpg", "bytes": None}},
        {"href": "p.jpg"},
        {"link": "p.jpg", "alt": "a mug"},
        {"large": ["p.jpg"]},
        "[{'src': 'p.jpg', 'position': 1}]",
        ['{"url": "p.jpg"}'],
        json.dumps(json.dumps(["p.jpg"])),
        '["p.jpg"]',
        b'["p.jpg"]',
    ],
)
def test_the_best_image_of_an_object(cell: object) -> None:
    assert sample("CC", images=cell).images == ("p.jpg",)
    assert sample("CC", images=json.loads(json.dumps(cell, default=bytes.decode))).images == ("p.jpg",)


@pytest.mark.parametrize(
    "cell",
    [
        {"large": True, "url": "p.jpg"},
        {"original": 1200, "small": "p.jpg"},
        {"full": 1.5, "src": "p.jpg"},
        {"large": [True], "url": ["p.jpg"]},
        {"source": "google", "image": "p.jpg"},
        {"data": "front view", "img": "p.jpg"},
        {"file": "front view", "photo": {"url": "p.jpg", "source": "shop"}},
    ],
)
def test_a_value_that_is_no_reference_is_skipped(cell: object) -> None:
    assert sample("CC", images=cell).images == ("p.jpg",)


def test_an_object_of_flags_contains_no_reference() -> None:
    (image,) = sample("CC", images={"large": True}).images
    assert isinstance(image, UnreadableImage)
    assert sample("CC", images={"source": "p.jpg"}).images == ("p.jpg",)


def test_bytes_in_objects() -> None:
    assert sample("CC", images={"image": {"bytes": b"\xff\xd8", "path": None}}).images == (b"\xff\xd8",)
    assert sample("CC", images={"bytes": [b"\xff\xd8"], "path": [None]}).images == (b"\xff\xd8",)


def test_objects_keep_their_order() -> None:
    assert sample("PRP", images={"large": ["a", "b"], "hi_res": ["c", None]}).images == ("c", "b")
    assert sample("PRP", images=[{"large": None}, {"src": "b"}]).images == (None, "b")


@pytest.mark.parametrize("cell", [[{"position": 1, "alt": "mug"}], {"alt": "mug", "position": 1}])
def test_keys_that_are_not_read_are_named(cell: object) -> None:
    (image,) = sample("CC", images=cell).images
    assert isinstance(image, UnreadableImage)
    assert image.reason.startswith("unsupported image object: none of its keys is read (alt, position); give")
    assert "'alt': 'mug'" in image.source
    # Such an image is lost alone, and names no sample.
    assert sample("CC", images=cell).sample_id == sample("CC", images=[None]).sample_id


def test_several_images_of_one_product_are_refused() -> None:
    (image,) = sample("CC", images=[{"large": ["a.jpg", "b.jpg"]}]).images
    assert isinstance(image, UnreadableImage)
    assert image.reason.startswith("several images for one product: 2")
    with pytest.raises(RowError, match=r"2 images for 1 product\(s\)"):
        sample("CC", images={"large": ["a.jpg", "b.jpg"]})
    with pytest.raises(RowError, match=r"lists that differ in length \(large 2, hi_res 1\)"):
        sample("PRP", images={"large": ["a", "b"], "hi_res": [None]})
