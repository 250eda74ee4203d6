"""The printed summary of the export job."""

from __future__ import annotations

from caslie_ray.export.summary_lines import summary_lines

SUMMARY = {
    "to": "s3://shop/out.csv", "format": "csv", "contexts": None, "products": 1200, "gone": 0, "without_image": 0,
    "won": 900, "lost": 100, "failed": 3, "missing": 0, "rows": 900, "seconds": 61.2,
}  # fmt: skip


def test_counts_and_the_target() -> None:
    assert summary_lines(SUMMARY) == [
        "products      1,200",
        "captions      900 won · 100 lost · 3 failed",
        "written       900 rows · csv · 1m01s",
        "to            s3://shop/out.csv",
    ]


def test_what_is_incomplete() -> None:
    lines = summary_lines(SUMMARY | {"gone": 2, "without_image": 7, "missing": 5, "contexts": ["product"]})
    assert lines[0] == "products      1,200 · 7 without an image · 2 more are no longer in the catalogue"
    assert lines[2] == "missing       5 views are not captioned yet: run caption, then export again"
    assert lines[3] == "contexts      product"
