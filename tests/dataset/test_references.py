"""References become locators."""

from __future__ import annotations

import base64

import pytest

from caslie_ray.dataset.references import Base, base_of, read_reference
from caslie_ray.dataset.urls import is_public
from caslie_ray.ids import content_id
from caslie_ray.tasks import UnreadableImage
from tests.dataset.world import encoded, picture, png

BASE = Base("/data/shop")


def locator(value: str | bytes | None, base: Base = BASE) -> str:
    return read_reference(value, base, "rows.json:1, image 1").locator


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://m.example.com/I/51%2Bab._AC_US500_.jpg", "url:https://m.example.com/I/51%2Bab._AC_US500_.jpg"),
        ("HTTP://example.com/a b.jpg#top", "url:http://example.com/a%20b.jpg"),
        ("//example.com/a.jpg", "url:https://example.com/a.jpg"),
        ("https://bücher.example/a.jpg", "url:https://xn--bcher-kva.example/a.jpg"),
        ("images/a.jpg", "file:/data/shop/images/a.jpg"),
        ("../a.jpg", "file:/data/a.jpg"),
        ("/abs/a.jpg", "file:/abs/a.jpg"),
        ("file:///abs/a%20b.jpg", "file:/abs/a b.jpg"),
        ("s3://bucket/a b.jpg", "store:s3://bucket/a%20b.jpg"),
        ("C: the letter.jpg", "file:/data/shop/C: the letter.jpg"),
    ],
)
def test_locators(value: str, expected: str) -> None:
    assert locator(value) == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "missing image"),
        ("", "missing image"),
        ("https://user:secret@example.com/a.jpg", "credentials in URL"),
        ("https:///a.jpg", "invalid URL"),
        ("https://[::1/a.jpg", "invalid URL"),
        ("http://example.com:99999/a.jpg", "invalid URL"),
        ("ftp://example.com/a.jpg", "unsupported reference"),
        ("file://elsewhere/a.jpg", "unsupported reference"),
        ("a\0b.jpg", "unsupported reference"),
        ("data:image/png;base64", "invalid data URI"),
    ],
)
def test_references_that_cannot_be_used_say_why(value: str | None, reason: str) -> None:
    assert locator(value).startswith(f"bad:{reason}")


def test_relative_references_in_a_store_keep_its_settings() -> None:
    base = base_of("s3://bucket/sets/a%20b/rows.json?region=eu-north-1")
    assert locator("images/1 2.jpg", base) == "store:s3://bucket/sets/a%20b/images/1%202.jpg?region=eu-north-1"


def test_bytes_and_data_uris_are_known_by_their_content() -> None:
    data = b"any bytes"
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    one, other = read_reference(data, BASE, "rows:3, image 1"), read_reference(uri, BASE, "x")
    assert one.locator == other.locator
    assert one.data is not None
    assert one.data() == data
    assert one.source == "rows:3, image 1 (9 bytes)"
    assert other.source == uri


JPEG = encoded(picture(), "JPEG")
IMAGES = {
    "jpeg": JPEG,
    "png": png(),
    "gif": encoded(picture(), "GIF"),
    "webp": encoded(picture(), "WEBP"),
    "bmp": encoded(picture(), "BMP"),
    "tiff": encoded(picture(), "TIFF"),
}
TEXT = base64.b64encode(JPEG).decode()


def lines(text: str, end: str = "\n") -> str:
    return end.join(text[at : at + 76] for at in range(0, len(text), 76))


@pytest.mark.parametrize("data", IMAGES.values(), ids=IMAGES)
def test_an_image_as_base64_is_read(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    url_safe = base64.urlsafe_b64encode(data).decode().rstrip("=")
    forms: list[str | bytes] = [
        text, text.rstrip("="), url_safe, lines(text), lines(text, "\r\n"), f" {text}\n", repr(text.encode()),
        f"base64,{text}", f"image/png;base64,{text}", text.encode(), f"data:image/png;base64,{url_safe}",
        f"data:;base64,{text}", f"data:base64,{text}", f"data:image/png,{text}",
        f"DATA:image/png;BASE64, {lines(text)}",
        f"data:image/png;charset=utf-8;base64,{text}", "data:image/png;base64," + text.replace("+", "%2B"),
    ]  # fmt: skip
    for form in forms:
        reference = read_reference(form, BASE, "rows:3, image 1")
        assert reference.locator == "bytes:" + content_id(data), form[:40]
        assert reference.data is not None
        assert reference.data() == data
        assert len(reference.source) <= 100


@pytest.mark.parametrize(
    "path",
    ["9j/4AAQ", "/9j/photos/mug", "iVBORw0KGgo/mug", "R0lGOD/a/b", "QkFCQUJBQkE", "photos/mug", "UklGRg/x/WEBP",
     "base64/mug.jpg", "a,b.jpg", "dir/base64,mug.jpg", "b'mug.jpg'", "BMW", "SUkqAmug"],
)  # fmt: skip
def test_a_path_that_could_be_base64_is_a_path(path: str) -> None:
    assert locator(path).startswith("file:")


@pytest.mark.parametrize("end", [1, 4])
def test_base64_that_was_cut_off_is_no_path(end: int) -> None:
    cut = TEXT.rstrip("=")[: 4 * 300 + end]
    uri = read_reference(f"data:image/jpeg;base64,{cut}", BASE, "x")
    assert uri.data is None or uri.data() == JPEG[: len(cut) * 3 // 4]
    assert locator(cut) == uri.locator or "write data:image/jpeg;base64," in locator(cut)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("data:image/png;base64," + "A" * 4 * 50 + "A", "the text was cut off; write data:image/jpeg;base64,"),
        ("data:image/png;base64,<elided>", "character '<' at 0 is not base64; write data:image/jpeg;base64,"),
        ("data:image/png", "it has no comma; write data:image/jpeg;base64,"),
        ("x" * 300, "300 characters are too long for a path; for an image as base64 write data:image/jpeg;base64,"),
        ("a/" * 3000 + ".jpg", "too long for a path"),
    ],
)
def test_texts_that_are_no_image_say_the_mend_and_are_cut(value: str, reason: str) -> None:
    reference = read_reference(value, BASE, "x")
    assert reference.locator.startswith("bad:")
    assert reason in reference.locator
    assert len(reference.source) <= 100
    assert len(value) <= 100 or f"… ({len(value):,} characters)" in reference.source


def test_an_image_object_that_was_not_read_keeps_its_reason() -> None:
    reference = read_reference(UnreadableImage("unsupported image object: x", "{'x': 1}"), BASE, "x")
    assert (reference.locator, reference.source) == ("bad:unsupported image object: x", "{'x': 1}")


def test_data_uris_without_base64() -> None:
    data = b"any bytes"
    one = read_reference(data, BASE, "x")
    assert locator("data:,any%20bytes") == one.locator


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b::7f00:1", "no address",
    ],
)  # fmt: skip
def test_addresses_that_are_nobodys_business(address: str) -> None:
    assert not is_public(address)
