"""Hostile image files: each is one reject, or a harmless image, within a time and a memory. Honest ones go through."""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from struct import pack
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from caslie_ray.dataset import ingest
from caslie_ray.dataset._decoding import decoder
from caslie_ray.dataset._fetching import Outcome, try_decode
from caslie_ray.profiles import ImageSettings, load_profile
from caslie_ray.storage.run import open_run
from tests.dataset.world import category, encoded, picture, png, write_json
from tests.hostile import images as make
from tests.measuring import measured

MIB = 1 << 20


class Row(NamedTuple):
    """An input and its bounds.

    Attributes:
        data: makes the file.
        expected: text in the reason, or the size of the stored image.
        seconds: limit of wall-clock time on a busy machine.
        mib: limit of memory in MiB, of the decoder process or what this one grew.
        settings: of `images`, where they are not the defaults.
    """

    data: Callable[[], bytes]
    expected: str | tuple[int, int]
    seconds: float = 30.0
    mib: float = 300.0
    settings: dict[str, Any] = {}  # noqa: RUF012


def grey_tiff(width: int, height: int, body: bytes, bits: int = 8, **tags: int) -> bytes:
    """A TIFF compressed with deflate, in one strip."""
    shape = {256: (4, (width,)), 257: (4, (height,)), 258: (3, (bits,)), 259: (3, (8,)), 262: (3, (1,))}
    shape |= {273: (4, (8,)), 277: (3, (1,)), 278: (4, (height,)), 279: (4, (len(body),))}
    return make.tiff(shape | {int(name[1:]): (3, (value,)) for name, value in tags.items()}, body)


def tiled_tiff(side: int) -> bytes:
    """10 x 10 pixels in one tile."""
    body = make.deflated_zeros(side * side * 3)
    shape = {256: (4, (10,)), 257: (4, (10,)), 258: (3, (8, 8, 8)), 259: (3, (8,)), 262: (3, (2,)), 277: (3, (3,))}
    shape |= {322: (4, (side,)), 323: (4, (side,)), 324: (4, (8,)), 325: (4, (len(body),))}
    return make.tiff(shape, body)


def tiff_of_jpeg(scans: int) -> bytes:
    """A TIFF whose strip is a JPEG of many scans."""
    return grey_tiff(7071, 7071, make.jpeg_with_scans(scans), n259=7)


def cut(kind: str, share: float) -> bytes:
    data = encoded(picture(size=(200, 160)), kind)
    return data[: int(len(data) * share)]


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def with_exif(orientation: bytes) -> bytes:
    """A JPEG whose EXIF says its orientation with a value of 4 GB."""
    exif = b"Exif\0\0II*\0" + pack("<IHHHI", 8, 1, 0x0112, 3, 0xFFFFFFFF) + orientation
    return make.jpeg_with_segments(0xE1, exif, 1)


def zeros() -> bytes:
    return make.deflated_zeros(1 << 30)


def patched_tile(side: int) -> bytes:
    """A tile whose size is a lie, with hardly any data."""
    return (
        tiled_tiff(16)
        .replace(pack("<HHII", 322, 4, 1, 16), pack("<HHII", 322, 4, 1, side))
        .replace(pack("<HHII", 323, 4, 1, 16), pack("<HHII", 323, 4, 1, side))
    )


JPEG, PNG = encoded(picture(), "JPEG"), encoded(picture())
SMALL = (40, 30)

HOSTILE: dict[str, Row] = {
    # Time.
    "JPEG, 400 scans": Row(lambda: make.jpeg_with_scans(400), "too many scans", 30, 250),
    "JPEG, 261,770 scans": Row(lambda: make.jpeg_with_scans(261_770), "too many scans", 30, 250),
    "JPEG, 90 scans, one second": Row(lambda: make.jpeg_with_scans(90), "too slow", 60, 400, {"decode_timeout_s": 1.0}),
    "JPEG, 4,000,000 comments": Row(
        lambda: make.jpeg_with_segments(0xFE, b"", 4_000_000), "too slow", 60, 400, {"decode_timeout_s": 1.0}
    ),
    "TIFF, a JPEG of 99 scans": Row(lambda: tiff_of_jpeg(99), "too slow", 60, 400, {"decode_timeout_s": 1.0}),
    "BMP, 9,000,000 runs": Row(
        lambda: make.bmp_rle(7071, 7071, b"\1\7" * 9_000_000), "too slow", 60, 300, {"decode_timeout_s": 1.0}
    ),
    "PNG, 100,000 frames": Row(lambda: make.apng(100_000), (10, 10)),
    "GIF, 1,000,000 frames": Row(lambda: make.gif(1, 1, frames=1_000_000), (1, 1)),
    "TIFF, 30,000 directories": Row(lambda: make.tiff_chain(30_000), (10, 10)),
    "MPO of 60,000 times itself": Row(make.looping_mpo, SMALL),
    # Memory.
    "TIFF, a tile of 25008 x 25008": Row(lambda: tiled_tiff(25008), "too much memory"),
    "TIFF, a tile of 65535 x 65535": Row(lambda: patched_tile(65535), "too much memory"),
    "WebP, 50 megapixels in 28 bytes": Row(
        lambda: make.webp(7071, 7071), "too much memory", settings={"max_memory": 1_000_000_000}
    ),
    "WebP, 268 megapixels": Row(lambda: make.webp(16384, 16384), "too many pixels"),
    "PNG, 16 bits, 50 megapixels": Row(lambda: make.png(7071, 7071, depth=16), (500, 500), 30, 450),
    "PNG, 16 bits, RGBA, 50 megapixels": Row(lambda: make.png(7071, 7071, depth=16, kind=6), (500, 500), 30, 600),
    "TIFF, floats, 50 megapixels": Row(
        lambda: grey_tiff(7071, 7071, make.deflated_zeros(7071**2 * 4), bits=32, n339=3), (500, 500), 60, 700
    ),
    "PNG, 1 x 50,000,000": Row(lambda: make.png(1, 50_000_000), "too much memory"),
    "PNG, 50,000,000 x 1": Row(lambda: make.png(50_000_000, 1), "too much memory"),
    "PNG, 60,000 x 60,000": Row(lambda: make.png(60_000, 60_000, depth=1), "too many pixels"),
    "GIF, 65,535 x 65,535": Row(lambda: make.gif(65535, 65535), "too many pixels"),
    "GIF, a frame far outside": Row(lambda: make.gif(10, 10, frame=(65000, 65000, 500, 500)), "too many pixels"),
    "BMP, 50 megapixels of skips": Row(lambda: make.bmp_rle(7071, 7071, b"\0\2\0\xff" * 28), (500, 500), 30, 600),
    "PNG, text of 1 GB": Row(lambda: make.png(10, 10, extra=make.png_chunk(b"zTXt", b"k\0\0" + zeros())), "damaged"),
    "PNG, profile of 1 GB": Row(lambda: make.png(10, 10, extra=make.png_chunk(b"iCCP", b"k\0\0" + zeros())), "damaged"),
    "PNG, pixels of 5 GB": Row(lambda: make.png(10, 10, pixels=make.deflated_zeros(5 << 30)), (10, 10)),
    "JPEG, EXIF of 16 MB": Row(lambda: make.jpeg_with_segments(0xE1, b"Exif\0\0" + bytes(65000), 250), SMALL),
    "JPEG, EXIF of 4 GB, it says": Row(lambda: with_exif(pack("<I", 26)), SMALL),
    "JPEG, a small limit of memory": Row(
        lambda: encoded(picture(size=(3000, 3000)), "JPEG"), "images.max_memory", settings={"max_memory": 30_000_000}
    ),
    # Lengths that are lies.
    "PNG, a chunk of 2 GB, it says": Row(lambda: patched(PNG, 33, b"\x7f\xff\xff\xff"), SMALL),
    "JPEG, a segment past the end": Row(lambda: patched(JPEG, 4, b"\xff\xff"), "damaged"),
    "JPEG, no height": Row(lambda: patched(JPEG, JPEG.index(b"\xff\xc0") + 5, b"\0\0"), "damaged"),
    "WebP, a file of 4 GB, it says": Row(
        lambda: patched(encoded(picture(), "WEBP"), 4, b"\xff\xff\xff\xff"), "damaged"
    ),
    "BMP, no width": Row(lambda: patched(encoded(picture(), "BMP"), 18, bytes(4)), "damaged"),
    "BMP, pixels past the end": Row(lambda: patched(encoded(picture(), "BMP"), 10, b"\xff\xff\xff\x7f"), "damaged"),
    "TIFF, 4,294,967,295 strips": Row(
        lambda: patched(grey_tiff(10, 10, zlib.compress(bytes(100))), 8 + 17 + 2 + 5 * 12 + 4, b"\xff" * 4), "damaged"
    ),
    # What is something else too.
    "GIF and script": Row(lambda: b"GIF89a/*" + b"*/=1;alert(1)" * 10, "damaged"),
    "PDF with a JPEG in it": Row(lambda: b"%PDF-1.7\n" + JPEG, "a PDF"),
    "JPEG and archive": Row(lambda: JPEG + b"PK\3\4" + bytes(1000), SMALL),
    "PNG and page": Row(lambda: PNG + b"<html><script>alert(1)</script></html>", SMALL),
    "PostScript": Row(lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "pixmap": Row(lambda: b"P6 99999 99999 255\n", "not an image"),
    **{
        f"{kind}, cut": Row(lambda kind=kind: cut(kind, 0.6), "damaged")  # type: ignore[misc]
        for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
    },
}


def decode_once(data: bytes, settings: dict[str, Any]) -> Outcome:
    """Decode and wait for the decoder's end, so that its memory is counted."""
    outcome = try_decode(data, ImageSettings(**settings))
    decoder().close()
    return outcome


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image_costs_little(name: str) -> None:
    row = HOSTILE[name]
    done = measured(decode_once, row.data(), row.settings, timeout_s=120)
    assert done.error is None
    outcome: Outcome = done.value
    if isinstance(row.expected, str):
        assert outcome.image is None
        assert row.expected in str(outcome.reason)
        assert not outcome.retryable
    else:
        assert outcome.image is not None, outcome.reason
        assert (outcome.image.width, outcome.image.height) == row.expected
    assert done.cost.seconds < row.seconds
    assert done.cost.mib < row.mib


def tiles(side: int, tile: int) -> bytes:
    """A TIFF of compressed tiles, the last of each row and column not full."""
    across = -(-side // tile)
    parts = [zlib.compress(bytes([10 + number] * tile * tile)) for number in range(across * across)]
    offsets = [8 + sum(map(len, parts[:number])) for number in range(len(parts))]
    shape = {256: (4, [side]), 257: (4, [side]), 258: (3, [8]), 259: (3, [8]), 262: (3, [1]), 277: (3, [1])}
    shape |= {322: (4, [tile]), 323: (4, [tile]), 324: (4, offsets), 325: (4, [len(part) for part in parts])}
    return make.tiff(shape, b"".join(parts))


def large(pixels: tuple[int, int], mode: str = "RGB") -> Image.Image:
    return picture(size=(400, 300)).resize(pixels).convert(mode)


def deep(side: int) -> Image.Image:
    return Image.fromarray(np.arange(side * side, dtype=np.uint16).reshape(side, side))


HONEST: dict[str, tuple[Callable[[], bytes], tuple[int, int]]] = {
    "JPEG, 48 megapixels": (lambda: encoded(large((8000, 6000)), "JPEG"), (500, 375)),
    "JPEG, progressive, 24 megapixels": (lambda: encoded(large((6000, 4000)), "JPEG", progressive=True), (500, 333)),
    "JPEG, CMYK, 12 megapixels": (lambda: encoded(large((4000, 3000), "CMYK"), "JPEG"), (500, 375)),
    "WebP, 24 megapixels": (lambda: encoded(large((6000, 4000)), "WEBP", method=0), (500, 333)),
    "WebP, 50 megapixels with alpha": (
        lambda: encoded(Image.new("RGBA", (10_000, 5_000), (200, 30, 60, 128)), "WEBP", lossless=True, method=0),
        (500, 250),
    ),
    "WebP, animated": (
        lambda: encoded(picture(), "WEBP", save_all=True, append_images=[picture(n) for n in range(1, 9)]),
        SMALL,
    ),
    "GIF, animated": (
        lambda: encoded(picture(), "GIF", save_all=True, append_images=[picture(n) for n in range(1, 9)]),
        SMALL,
    ),
    "PNG, 16 bits": (lambda: encoded(deep(2000)), (500, 500)),
    "PNG, 24 megapixels with alpha": (lambda: encoded(large((6000, 4000), "RGBA"), compress_level=1), (500, 333)),
    "TIFF, tiles": (lambda: tiles(1000, 256), (500, 500)),
    "TIFF, LZW, 12 megapixels": (lambda: encoded(large((4000, 3000)), "TIFF", compression="tiff_lzw"), (500, 375)),
    "BMP, run lengths": (lambda: make.bmp_rle(300, 200, (b"\xff\1\x2d\2\0\0") * 200 + b"\0\1"), (300, 200)),
    "long and thin": (lambda: encoded(large((20_000, 50)), "JPEG"), (500, 1)),
}


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_image_is_accepted(name: str) -> None:
    data, size = HONEST[name]
    outcome = try_decode(data(), ImageSettings(max_bytes=100_000_000))
    assert outcome.image is not None, outcome.reason
    assert (outcome.image.width, outcome.image.height) == size


def test_a_job_processes_all_hostile_images(ray_cluster: None, tmp_path: Path) -> None:
    """Each costs its own row only; the other rows are read."""
    profile = load_profile("mini")
    cheap = {name: row for name, row in HOSTILE.items() if not row.settings and row.mib <= 300}
    (tmp_path / "images").mkdir()
    listed = []
    for number, (name, row) in enumerate(cheap.items()):
        (tmp_path / "images" / f"{number}.bin").write_bytes(row.data())
        (tmp_path / "images" / f"{number}.png").write_bytes(png(number))
        listed += [category(name, f"images/{number}.bin"), category(f"honest {number}", f"images/{number}.png")]
    inside = base64.b64encode(patched_tile(65535)).decode()
    listed += [category("inside", f"data:image/tiff;base64,{inside}"), category("honest inside", "images/0.png")]
    run = open_run(str(tmp_path / "run"))
    begun = time.monotonic()
    summary = ingest(run, [write_json(tmp_path / "rows.json", listed)], profile, quiet=True)
    assert time.monotonic() - begun < 150

    reasons = {row["source"]: row["reason"] for row in run.read("rejects").to_pylist()}
    used = {json.loads(json.dumps(row["input"]))[0]["text"]: row["view_ids"] for row in run.read("samples").to_pylist()}
    for number, (name, row) in enumerate(cheap.items()):
        assert used[f"honest {number}"] != [None]
        if isinstance(row.expected, str):
            assert row.expected in reasons.pop(f"images/{number}.bin"), name
        else:
            assert used[name] != [None], name
    assert used["honest inside"] != [None]
    ((_, reason),) = reasons.items()
    assert "too much memory" in reason
    assert summary.rejects["image"] == sum(isinstance(row.expected, str) for row in cheap.values()) + 1
