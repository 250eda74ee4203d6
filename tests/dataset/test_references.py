"""References become locators."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import pytest

from caslie_ray.dataset._references import read_reference
from caslie_ray.dataset._roots import RefusedPath, Root, Roots, find_root, given_roots, roots_of, with_path
from caslie_ray.dataset._urls import is_public
from caslie_ray.hashing import content_id
from caslie_ray.profiles import ImageSettings
from caslie_ray.tasks import UnreadableImage
from tests.dataset.world import encoded, picture, png


def roots(file: str, source: str = "", **images: object) -> Roots:
    settings = ImageSettings.model_validate(images)
    return roots_of(file, source, settings.root is not None, given_roots(settings))


BASE = roots("/data/shop/rows.json")
ALLOWED = roots("/data/shop/rows.json", allow=["/abs", "/data/media/", "s3://bucket", "gs://shop/a b/"])
STORE = roots("s3://KEY:SECRET@bucket/sets/a%20b/rows.json?region=eu-north-1&endpoint_override=h:9")


def locator(value: str | bytes | None, base: Roots = ALLOWED) -> str:
    return read_reference(value, base, "rows.json:1, image 1").locator


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("https://m.example.com/I/51%2Bab._AC_US500_.jpg", "url:https://m.example.com/I/51%2Bab._AC_US500_.jpg"),
        ("HTTP://example.com/a b.jpg#top", "url:http://example.com/a%20b.jpg"),
        ("//example.com/a.jpg", "url:https://example.com/a.jpg"),
        ("https://bücher.example/a.jpg", "url:https://xn--bcher-kva.example/a.jpg"),
        ("images/a.jpg", "file:/data/shop/images/a.jpg"),
        ("../media/a.jpg", "file:/data/media/a.jpg"),
        ("images/../b/./c//a.jpg", "file:/data/shop/b/c/a.jpg"),
        ("/data/shop/a.jpg", "file:/data/shop/a.jpg"),
        ("%2e%2e/a%20b.jpg", "file:/data/shop/%2e%2e/a%20b.jpg"),
        ("..a/b...jpg", "file:/data/shop/..a/b...jpg"),
        ("~/a.jpg", "file:/data/shop/~/a.jpg"),
        ("s3:a.jpg", "file:/data/shop/s3:a.jpg"),
        ("file:a.jpg", "file:/data/shop/a.jpg"),
        ("file://localhost/data/shop/a.jpg", "file:/data/shop/a.jpg"),
        ("/abs/a.jpg", "file:/abs/a.jpg"),
        ("file:///abs/a%20b.jpg", "file:/abs/a b.jpg"),
        ("s3://bucket/a b.jpg", "store:s3://bucket/a b.jpg"),
        ("S3://bucket/x/../a%20b%252e#1.jpg", "store:s3://bucket/a b%2e#1.jpg"),
        ("s3://bucket/a..b/...jpg", "store:s3://bucket/a..b/...jpg"),
        ("gcs://shop/a%20b/1.jpg", "store:gs://shop/a b/1.jpg"),
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
        ("s3://bucket/a\0b.jpg", "unsupported reference"),
        ("../a.jpg", "refused path"),
        ("/data/shopping/a.jpg", "refused path"),
        ("/data/shop/../a.jpg", "refused path"),
        ("file:///data/shop/%2e%2e/a.jpg", "refused path"),
        ("file:../a.jpg", "refused path"),
        ("/etc/passwd", "refused path"),
        ("///etc/passwd", "invalid URL"),
        ("s3://bucket2/a.jpg", "refused prefix"),
        ("s3://Bucket/a.jpg", "refused prefix"),
        ("s3:///a.jpg", "refused prefix"),
        ("gs://bucket/a.jpg", "refused prefix"),
        ("gs://shop/a b/../c.jpg", "refused prefix"),
        ("gs://shop/a b/%2e%2e/c.jpg", "refused prefix"),
        ("hdfs://127.0.0.1:9/a.jpg", "refused prefix"),
        ("s3://bucket/a.jpg?endpoint_override=evil.example", "refused URI"),
        ("s3://key:secret@bucket/a.jpg", "refused URI"),
        ("s3://bucket@evil.example/a.jpg", "refused URI"),
        ("s3://evil.example\\@bucket/a.jpg", "refused URI"),
        ("a\0b.jpg", "unsupported reference"),
        ("data:image/png;base64", "invalid data URI"),
    ],
)
def test_references_that_cannot_be_used_say_why(value: str | None, reason: str) -> None:
    assert locator(value).startswith(f"bad:{reason}")


def test_relative_references_in_a_store_keep_its_settings() -> None:
    found = locator("images/1 2.jpg", STORE)
    assert re.fullmatch(r"store:[0-9a-f]{8}:s3://bucket/sets/a b/images/1 2\.jpg", found)
    assert locator("s3://bucket/sets/a%20b/images/1%202.jpg", STORE) == found
    root, path = find_root(STORE.allowed, found)
    assert root.top == "s3://KEY:SECRET@bucket/?region=eu-north-1&endpoint_override=h:9"
    assert path == "/sets/a b/images/1 2.jpg"
    for outside in ("../a.jpg", "/sets/a b/images/1.jpg", "s3://bucket/sets/a.jpg"):
        assert locator(outside, STORE).startswith("bad:refused p")
    other = locator("images/1 2.jpg", roots("s3://bucket/sets/a%20b/rows.json"))
    with pytest.raises(RefusedPath, match="lies outside"):
        find_root(STORE.allowed, other)


def test_roots_are_identified_without_their_credentials() -> None:
    ours, theirs = (roots(f"s3://{user}bucket/rows.json?scheme=http").base for user in ("", "KEY:SECRET@"))
    assert ours.identity == theirs.identity
    assert "SECRET" not in repr(theirs)
    assert roots("s3://bucket/rows.json?scheme=https").base.identity != ours.identity
    azure = roots("/x/rows.json", allow=["abfss://box:KEY@account.dfs.core.windows.net/a"])
    found = locator("abfs://box@account.dfs.core.windows.net/a/1.jpg", azure)
    assert found == "store:abfs://box@account.dfs.core.windows.net/a/1.jpg"
    assert locator("abfs://account.dfs.core.windows.net/a/1.jpg", azure).startswith("bad:refused prefix")


def test_a_source_folder_and_a_root_may_be_named_besides_the_folder_of_the_file() -> None:
    folder = roots("/data/shop/parts/rows.json", "/data/shop")
    assert locator("../images/a.jpg", folder) == "file:/data/shop/images/a.jpg"
    assert locator("../../a.jpg", folder).startswith("bad:refused path")
    rooted = roots("/data/shop/parts/rows.json", root="s3://bucket/media")
    assert locator("a.jpg", rooted) == "store:s3://bucket/media/a.jpg"
    assert locator("/data/shop/parts/a.jpg", rooted) == "file:/data/shop/parts/a.jpg"
    assert locator("/data/shop/a.jpg", rooted).startswith("bad:refused path")
    assert locator("../a.jpg", rooted).startswith("bad:refused prefix")


def test_a_linked_root_may_be_named_by_either_path(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    linked = roots("/x/rows.json", allow=[str(tmp_path / "link")])
    for name in ("link", "real"):
        assert locator(f"{tmp_path}/{name}/a.jpg", linked) == f"file:{tmp_path}/{name}/a.jpg"


def test_links_of_roots_are_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved: list[str] = []
    resolve = os.path.realpath

    def counted(path: str) -> str:
        resolved.append(path)
        return resolve(path)

    monkeypatch.setattr(os.path, "realpath", counted)
    given = roots("/x/rows.json", root=str(tmp_path), allow=["/abs", "s3://bucket"])
    for number in range(100):
        assert locator(f"{tmp_path}/{number}.jpg", given).startswith("file:")
        assert locator(f"/elsewhere/{number}.jpg", given).startswith("bad:refused path")
    assert len(resolved) <= 3


@pytest.mark.parametrize("scheme", ["hdfs", "viewfs"])
def test_a_store_without_a_host_keeps_its_slashes(scheme: str) -> None:
    """The host is then that of the client's configuration."""
    here = roots(f"{scheme}:///sets/a/rows.json?user=me")
    assert here.base.uri == f"{scheme}:///sets/a?user=me"
    assert here.base.top == f"{scheme}:///?user=me"
    assert locator("1.jpg", here) == f"store:{scheme}:///sets/a/1.jpg"
    assert find_root(here.allowed, locator(f"{scheme}:///sets/a/1.jpg", here)) == (here.base, "/sets/a/1.jpg")
    assert Root.of(f"{scheme}://node:9/a").top == f"{scheme}://node:9/"
    assert with_path(f"{scheme}:///sets", "/sets/a%20b.json") == f"{scheme}:///sets/a%20b.json"


def test_a_name_in_a_store_may_be_longer_than_a_file_name() -> None:
    name = "n" * 900
    assert locator(f"s3://bucket/{name}.jpg") == f"store:s3://bucket/{name}.jpg"
    assert locator(f"a/{name}.jpg", roots("s3://bucket/rows.json")) == f"store:s3://bucket/a/{name}.jpg"
    for local in (f"/abs/{name}.jpg", f"file:///abs/{name}.jpg", f"a/{name}.jpg"):
        assert "too long for a path" in locator(local)
    assert "too long for a path" in locator(f"/abs/{name}.jpg", roots("s3://bucket/rows.json", allow=["/abs"]))
    assert "too long for a path" in locator("s3://bucket/" + "a/" * 3000)


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
    assert locator(path, roots("/data/shop/rows.json", allow=["/9j"])).startswith("file:")


@pytest.mark.parametrize("end", [1, 4])
def test_truncated_base64_is_no_path(end: int) -> None:
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
def test_texts_that_are_no_image_are_truncated_and_name_the_remedy(value: str, reason: str) -> None:
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


@pytest.mark.parametrize(
    "address",
    ["93.184.216.34", "168.63.129.17", "192.0.1.1", "198.20.0.1", "223.255.255.255", "2606:2800:220:1::1",
     "2001:4860:4860::8888", "2a00:1450:4001:80e::200e", "64:ff9b::5db8:d822", "2002:5db8:d822::1", "::ffff:8.8.8.8"],
)  # fmt: skip
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "64:ff9b::7f00:1", "no address",
        "168.63.129.16", "::ffff:168.63.129.16", "64:ff9b::a83f:8110", "192.0.0.1", "192.0.0.9", "192.0.0.192",
        "100.100.100.200", "100.127.255.255", "169.254.170.2", "192.0.2.1", "192.31.196.1", "192.52.193.1",
        "192.88.99.1",
        "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "239.255.255.250", "240.0.0.1",
        "fec0::1", "feff::1", "fd00:ec2::254", "fd20:ce::254", "fd00:c1::a9fe:a9fe", "3fff::1", "3fff:fff::1",
        "5f00::1",
        "64:ff9b:1::808:808", "100::1", "2001::1", "2001:0:5db8:d822::1", "2001:2::1", "2001:10::1", "2001:20::1",
        "2001:db8::1", "2620:4f:8000::1", "4000::1", "::8.8.8.8", "::7f00:1", "ff0e::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)
