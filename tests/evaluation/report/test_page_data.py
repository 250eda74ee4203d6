"""The data of the report page: the order of its views, its thumbnails, its file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from caslie_ray.evaluation.report import thumbnails as thumbs
from caslie_ray.evaluation.report.page import render_page, write_page
from caslie_ray.evaluation.report.plots import Bar, Figure
from caslie_ray.evaluation.report.ranking import RankedView, disagreement, mean_p_yes, rank_of, worst_first, worst_of
from caslie_ray.evaluation.report.shown import ShownVote
from caslie_ray.evaluation.report.text_limits import MAX_CHARACTERS, truncate, truncate_columns
from caslie_ray.storage.run import open_run
from tests.evaluation.shown import encoded, photo, truth, view


def test_worst_first_puts_confident_mistakes_before_errors_before_disagreement() -> None:
    views = [
        view("agreed", (0.9, 0.9, 0.9), truth=truth(True)),
        view("split", (0.9, 0.9, 0.1), truth=truth(True)),
        view("lost", (0.4, 0.3), truth=truth(True)),
        view("kept", (0.99, 0.98), truth=truth(False)),
        view("error", (), caption=None, error="failed", truth=truth(False)),
        view("undecided", (0.6, 0.5, 0.45), truth=truth(False)),
        view("lost surely", (0.1, 0.0), truth=truth(True)),
    ]

    assert [one.view_id for one in worst_first(views)] == [
        "kept", "lost surely", "lost", "error", "undecided", "split", "agreed",
    ]  # fmt: skip


def test_worst_first_without_truth_orders_by_errors_then_disagreement_then_doubt() -> None:
    views = [
        view("sure", (0.99, 0.98)),
        view("doubtful", (0.55, 0.6)),
        view("third", (0.9, 0.9, 0.1)),
        view("silent", (), votes=(ShownVote("voter", "yes", None, None),)),
        view("half", (0.9, 0.1)),
        view("error", (None, None), error="no quorum"),
    ]

    assert [one.view_id for one in worst_first(views)] == ["error", "half", "third", "doubtful", "sure", "silent"]


def test_the_worst_of_parts_are_the_worst_of_all() -> None:
    views = [view(str(number), (number % 7 / 7, number % 5 / 5)) for number in range(40)]
    ranked = [RankedView(rank_of(one), one.view_id, "0") for one in views]
    parts = [worst_of(ranked[start::3], 10) for start in range(3)]

    assert worst_of([one for part in parts for one in part], 10) == worst_of(ranked, 10)
    assert [one.rank for one in worst_of(ranked, 40)] == [rank_of(one) for one in worst_first(views)]


def test_failed_votes_count_neither_for_nor_against() -> None:
    assert disagreement(view("one", (0.9, None, 0.1)).votes) == 0.5
    assert disagreement(view("one", (None,)).votes) == 0
    assert mean_p_yes(view("one", (0.9, None, 0.5)).votes) == pytest.approx(0.7)
    assert mean_p_yes(view("one", (None,)).votes) is None


def test_thumbnails_are_small_and_broken_ones_are_none() -> None:
    wide = encoded(Image.new("RGB", (500, 100), (200, 30, 30)), "PNG")
    small = thumbs.thumbnail(wide, 112, 2_000)
    assert small is not None
    with Image.open(io.BytesIO(small)) as image:
        assert (image.size, image.format) == ((112, 22), "WEBP")
    assert thumbs.thumbnail(photo(1)[:200], 112, 2_000) is None

    found = thumbs.make_thumbnails({"good": photo(2), "broken": b"\x89PNG\r\n\x1a\n rubbish", "empty": b""})
    assert found["good"]
    assert (found["broken"], found["empty"]) == (None, None)
    assert thumbs.make_thumbnails({}) == {}


def test_a_thumbnail_of_noise_stays_within_its_size_limit() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    fine = thumbs.thumbnail(encoded(Image.fromarray(noise)), 112, 100_000)
    coarse = thumbs.thumbnail(encoded(Image.fromarray(noise)), 112, 1_500)

    assert fine is not None
    assert coarse is not None
    assert len(coarse) < len(fine) / 2


def test_nan_is_shown_as_unknown() -> None:
    html = render_page("Title", [], [Figure("F", "", (Bar("a", float("nan")),))], [view("one", (float("nan"),))], {})

    assert "NaN" not in html.split('id="data">')[1].split("</script>")[0]


def test_all_texts_together_keep_to_a_budget() -> None:
    hostile = "<" * 1_000_000
    views = [view(str(number), context=hostile, caption=hostile, error=hostile) for number in range(1000)]
    html = render_page("Title", [], [], views, {})

    assert 1_000_000 < len(html) < 30_000_000
    assert "… (1,000,000 characters)" in html


def test_texts_are_truncated_once() -> None:
    once = truncate("x" * 10_000)

    assert once == "x" * MAX_CHARACTERS + "… (10,000 characters)"
    assert truncate(once) == once
    assert truncate(once, 250) == "x" * 250 + "… (10,000 characters)"
    assert truncate("x" * MAX_CHARACTERS) == "x" * MAX_CHARACTERS
    assert truncate(None) is None


def test_texts_of_a_table_are_truncated_in_arrow() -> None:
    table = pa.table({"text": ["a", None, "é" * 1_234_567], "number": [1, 2, 3]})

    assert truncate_columns(table).to_pylist() == [
        {"text": "a", "number": 1},
        {"text": None, "number": 2},
        {"text": "é" * MAX_CHARACTERS + "… (1,234,567 characters)", "number": 3},
    ]
    assert truncate(truncate_columns(table)["text"][2].as_py(), 60) == "é" * 60 + "… (1,234,567 characters)"
    assert truncate_columns(table.slice(0, 2)).equals(table.slice(0, 2))
    assert truncate_columns(table.slice(0, 0)).num_rows == 0


def test_the_page_is_written_into_the_run(tmp_path: Path) -> None:
    write_page(open_run(str(tmp_path)), "<p>é \ud800</p>")

    assert (tmp_path / "report" / "index.html").read_bytes() == "<p>é ?</p>".encode()
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["index.html"]
