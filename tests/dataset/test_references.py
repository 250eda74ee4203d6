"""References become locators."""

from __future__ import annotations

import base64

import pytest

from caslie_ray.dataset.references import Base, base_of, read_reference
from caslie_ray.dataset.urls import is_public

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
