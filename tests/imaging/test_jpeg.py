"""Scans and coefficients of a JPEG, by its markers."""

from __future__ import annotations

import pytest

from caslie_ray.imaging._jpeg import read_jpeg
from tests.dataset.world import encoded, picture, png
from tests.hostile.images import jpeg_with_scans, jpeg_with_segments

SIZE = (100, 60)


@pytest.mark.parametrize(
    ("options", "scans", "blocks"),
    [
        ({}, 1, 0),
        ({"progressive": True, "subsampling": 0}, 10, 3 * 13 * 8),
        # 4:2:0: 7 x 4 units of four blocks of brightness and one of each colour.
        ({"progressive": True, "subsampling": 2}, 10, 7 * 4 * 6),
    ],
)
def test_jpegs_written_by_pillow(options: dict[str, object], scans: int, blocks: int) -> None:
    found = read_jpeg(encoded(picture(size=SIZE), "JPEG", **options), 100)
    assert found is not None
    assert found == (scans, blocks * 128)


def test_many_scans_are_not_counted_to_the_end() -> None:
    found = read_jpeg(jpeg_with_scans(400, side=64), 100)
    assert found is not None
    assert found.scans == 101
    found = read_jpeg(jpeg_with_scans(77, side=64), 100)
    assert found is not None
    assert found.scans == 77


def test_a_thumbnail_in_a_segment_does_not_count() -> None:
    inner = encoded(picture(), "JPEG", progressive=True)
    found = read_jpeg(jpeg_with_segments(0xE1, b"Exif\0\0" + inner, 3), 100)
    assert found is not None
    assert found.scans == 1


def test_what_is_no_jpeg_has_no_header() -> None:
    assert read_jpeg(png(), 100) is None
    data = encoded(picture(), "JPEG")
    for size in range(2, 700):
        assert read_jpeg(data[:size], 100) is not None
