"""The bytes of image files become stored images, or reasons."""

from __future__ import annotations

import io
from struct import pack
from zlib import compress, crc32

import numpy as np
import pytest
from PIL import Image, ImageOps

from caslie_ray.dataset._decoding import ImageError, StoredImage, decode
from caslie_ray.dataset._fetching import try_decode
from caslie_ray.profiles import ImageSettings
from tests.dataset.world import encoded, opened, picture, png

LIMITS = ImageSettings()


def pixels(stored: StoredImage) -> np.ndarray:
    return np.asarray(opened(stored.data), dtype=int)


def stored_of(image: Image.Image, kind: str = "PNG", **options: object) -> StoredImage:
    stored = decode(encoded(image, kind, **options), LIMITS)
    again = opened(stored.data)
    assert again.mode == "RGB"
    assert again.format in ("JPEG", "PNG")
    assert again.size == (stored.width, stored.height)
    return stored


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_plain_files_are_kept_byte_for_byte(kind: str) -> None:
    data = encoded(picture(), kind)
    assert decode(data, LIMITS).data == data


def test_the_same_bytes_give_the_same_image() -> None:
    data = encoded(picture(size=(800, 600)), "WEBP")
    assert decode(data, LIMITS) == decode(data, LIMITS)


@pytest.mark.parametrize(
    ("size", "stored"), [((1000, 600), (500, 300)), ((600, 1000), (300, 500)), ((501, 1), (500, 1)), ((7, 3), (7, 3))]
)
def test_sides_shrink_to_the_limit_and_never_grow(size: tuple[int, int], stored: tuple[int, int]) -> None:
    done = stored_of(picture(size=size), "BMP")
    assert (done.width, done.height) == stored


def test_shrinking_is_lanczos() -> None:
    large = picture(size=(1000, 800))
    expected = np.asarray(large.resize((500, 400), Image.Resampling.LANCZOS), dtype=int)
    assert abs(pixels(stored_of(large)) - expected).mean() < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(size=(40, 24)), "PNG", exif=exif)
    upright = Image.open(io.BytesIO(data))
    expected = np.asarray(ImageOps.exif_transpose(upright).convert("RGB"), dtype=int)
    done = decode(data, LIMITS)
    assert (pixels(done) == expected).all()
    assert opened(done.data).getexif().get(0x0112, 1) == 1


def test_cmyk_as_adobe_writes_it_keeps_its_colours() -> None:
    done = stored_of(picture().convert("CMYK"), "JPEG", quality=95)
    assert abs(pixels(done) - np.asarray(picture(), dtype=int)).mean() < 4


def test_transparency_is_composited_over_white() -> None:
    clear = picture().copy()
    clear.putalpha(0)
    assert (pixels(stored_of(clear)) == 255).all()
    half = Image.new("LA", (4, 4), (0, 128))
    assert abs(pixels(stored_of(half)) - 127).max() <= 1


def test_a_palette_with_a_transparent_colour_is_composited_over_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 4, 8))
    done = pixels(stored_of(image, transparency=0))
    assert tuple(done[0, 0]) == (255, 255, 255)
    assert tuple(done[0, 7]) == (0, 0, 255)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation_counts(kind: str) -> None:
    red, blue = (Image.new("RGB", (20, 20), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if kind == "WEBP" else {}
    done = stored_of(red, kind, save_all=True, append_images=[blue], duration=50, **options)
    assert tuple(pixels(done)[5, 5]) == (255, 0, 0)
    assert not getattr(opened(done.data), "is_animated", False)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("PNG", np.linspace(0, 65535, 256).astype(np.uint16)),
        ("TIFF", np.linspace(0, 65535, 256).astype(np.uint16)),
        ("TIFF", np.linspace(0, 1, 256).astype(np.float32)),
        ("TIFF", np.linspace(-5, 900, 256).astype(np.float32)),
        ("TIFF", np.linspace(0, 2**31 - 1, 256).astype(np.int32)),
    ],
)
def test_high_bit_depth_values_are_scaled_and_not_clipped(kind: str, values: np.ndarray) -> None:
    done = pixels(stored_of(Image.fromarray(np.tile(values, (4, 1))), kind))
    assert abs(done[0, :, 0] - np.arange(256)).max() <= 1


def raw_png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    def part(name: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + name + data + pack(">I", crc32(name + data))

    head = part(b"IHDR", pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + part(b"IDAT", compress(rows)) + part(b"IEND", b"")


def test_sixteen_bit_colour_is_stored_with_eight() -> None:
    row = b"\0" + pack(">3H", 65535, 32768, 0) * 4
    done = decode(raw_png(4, 4, 16, 2, row * 4), LIMITS)
    assert done.data[24] == 8
    assert tuple(pixels(done)[0, 0]) == (255, 128, 0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "LAB"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = picture().quantize(16) if mode == "P" else picture().convert(mode)
    stored_of(image, "TIFF")


def test_an_image_with_nan_values_is_decoded() -> None:
    values = np.full((4, 4), 0.5, dtype=np.float32)
    values[0, 0], values[1, 1] = np.nan, np.inf
    stored_of(Image.fromarray(values), "TIFF")


def test_lossy_stays_lossy_and_lossless_stays_exact() -> None:
    assert opened(stored_of(picture(size=(900, 900)), "JPEG").data).format == "JPEG"
    flat = stored_of(picture(), "GIF")
    assert opened(flat.data).format == "PNG"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8))
    assert len(stored_of(noise.resize((600, 600))).data) < 3 * 500 * 500


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_truncated_files_are_refused(kind: str, share: float) -> None:
    data = encoded(picture(size=(200, 160)), kind)
    with pytest.raises(ImageError, match="truncated or damaged"):
        decode(data[: int(len(data) * share)], LIMITS)


def test_a_png_without_its_end_is_refused() -> None:
    with pytest.raises(ImageError, match="truncated"):
        decode(png()[:-6], LIMITS)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html><body>no</body></html>", "an HTML page"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"%PDF-1.7 ...", "a PDF"),
        (b"\0\0\0\x20ftypavif....", "an AVIF image"),
        (b"\0\0\0\x20ftypisom....", "a video"),
        (b'{"error": "gone"}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"not found", "plain text"),
        (bytes(range(128, 256)), "unknown binary"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data, LIMITS)
    assert not caught.value.retryable


def test_limits_apply_before_anything_is_decoded() -> None:
    with pytest.raises(ImageError, match=r"too many pixels: 400 x 400"):
        decode(png(size=(400, 400)), ImageSettings(max_pixels=100_000))
    with pytest.raises(ImageError, match=r"too many bytes"):
        decode(png(), ImageSettings(max_bytes=100))
    with pytest.raises(ImageError, match=r"too many pixels"):
        decode(raw_png(30_000, 30_000, 1, 0, bytes(1000)), LIMITS)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_damaged_data_never_raises(kind: str) -> None:
    rng = np.random.default_rng(1)
    data = encoded(picture(), kind)
    for _ in range(40):
        broken = bytearray(data)
        for at in rng.integers(4, len(data), 6):
            broken[at] = rng.integers(0, 256)
        done = try_decode(bytes(broken), LIMITS)
        assert (done.image is None) == (done.reason is not None)
        if done.image is not None:
            assert opened(done.image.data).mode == "RGB"
