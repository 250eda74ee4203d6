"""The printed summary of the fuse job."""

from __future__ import annotations

from caslie_ray.fusion.summary_lines import summary_lines


def test_splits_captions_and_missing_rows() -> None:
    fused = summary_lines(
        {"variants": {"caslie": {"train": 5, "captions": 2}}, "views_without_caption_row": 4, "files_written": 1}
    )
    assert "train 5 · 2 captions used" in fused[0]
    assert "run caption to its end" in fused[1]
