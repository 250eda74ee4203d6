"""Captions out by product id: which rows, with what, and how the job ends."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from caslie_ray.cli import COMPLETE, FAILED, UNFINISHED, WRONG_ARGUMENTS
from caslie_ray.commands import caslie
from caslie_ray.errors import JobError
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS
from tests.export.shop import caption, csv_rows, exported, image, jsonl_rows, product, put_captions, put_products, shop


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(str(tmp_path / "run"))


def every_kind(run: Run) -> None:
    put_products(
        run,
        [
            product("mug", image(1, "mug-1"), image(2, "mug-2"), image(3, None, reason="cannot fetch it: 404")),
            product("pan", image(1, "pan-1"), image(1, "pan-alt", "alt_text")),
            product("bare"),
            product("old", image(1, "mug-1"), gone=True),
            product("older", gone=True),
        ],
    )
    put_captions(
        run,
        [
            caption("mug-1", "A red mug.\n", True, ann=0.9, bob=0.8, cy=None),
            caption("mug-2", "A mug.", False, ann=0.1, bob=0.7, cy=0.2),
            caption("pan-1", None, False, "the captioner failed: out of memory"),
            caption("other", "Of no product.", True),
        ],
    )


def test_captions_that_won_are_exported_by_default(run: Run, tmp_path: Path) -> None:
    every_kind(run)
    summary = exported(run, tmp_path / "out.jsonl")
    assert jsonl_rows(tmp_path / "out.jsonl") == [
        {
            "id": "mug",
            "context": "product",
            "image": "https://shop.example/1.jpg",
            "place": 1,
            "caption": "A red mug.",
            "verdict": True,
            "yes_share": 1.0,
            "probabilities": {"ann": 0.9, "bob": 0.8, "cy": None},
            "error": "",
        }
    ]
    counts = {"products": 3, "gone": 2, "without_image": 1, "won": 1, "lost": 1, "failed": 2, "missing": 1, "rows": 1}
    assert {name: summary[name] for name in counts} == counts
    assert run.read_json("summary/export.json") == summary
    assert run.listed(run.path("export")) == []


def test_all_shows_every_view_with_its_verdict_or_the_reason(run: Run, tmp_path: Path) -> None:
    every_kind(run)
    summary = exported(run, tmp_path / "out.jsonl", every=True)
    found = {(row["id"], row["context"], row["place"]): row for row in jsonl_rows(tmp_path / "out.jsonl")}
    assert {key: (row["verdict"], row["error"]) for key, row in found.items()} == {
        ("bare", "", None): (None, "the product has no image"),
        ("mug", "product", 1): (True, ""),
        ("mug", "product", 2): (False, ""),
        ("mug", "product", 3): (None, "cannot fetch it: 404"),
        ("old", "product", 1): (True, "no longer in the catalogue"),
        ("older", "", None): (None, "no longer in the catalogue"),
        ("pan", "alt_text", 1): (None, "not captioned yet: run caption"),
        ("pan", "product", 1): (None, "the captioner failed: out of memory"),
    }
    assert found["mug", "product", 2]["yes_share"] == pytest.approx(1 / 3)
    for key in (("bare", "", None), ("mug", "product", 3), ("pan", "alt_text", 1)):
        assert (found[key]["caption"], found[key]["yes_share"], found[key]["probabilities"]) == ("", None, None)
    assert summary["rows"] == len(found)
    assert {name: summary[name] for name in ("won", "lost", "failed", "missing")} == {
        "won": 1,
        "lost": 1,
        "failed": 2,
        "missing": 1,
    }


def test_rows_are_in_the_order_of_partitions_and_sorted_in_each(run: Run, tmp_path: Path) -> None:
    shop(run)
    exported(run, tmp_path / "out.jsonl", every=True)
    keys = [(row["id"], row["context"], row["place"]) for row in jsonl_rows(tmp_path / "out.jsonl")]
    in_parts = [
        key
        for part in sorted(run.by_partition("products"))
        for name in sorted(run.read("products", partition=part)["product_id"].to_pylist())
        for key in [(name, context, place) for context in ("alt_text", "product") for place in (1, 2)]
    ]
    assert keys == in_parts


def test_chosen_contexts_alone_are_exported_and_counted(run: Run, tmp_path: Path) -> None:
    every_kind(run)
    summary = exported(run, tmp_path / "out.jsonl", every=True, contexts=("alt_text",))
    found = {(row["id"], row["context"]) for row in jsonl_rows(tmp_path / "out.jsonl")}
    assert found == {("pan", "alt_text"), ("bare", ""), ("older", "")}
    assert (summary["missing"], summary["won"], summary["contexts"]) == (1, 0, ["alt_text"])


def test_the_last_row_of_a_view_counts(run: Run, tmp_path: Path) -> None:
    put_products(run, [product("mug", image(1, "v"))])
    for stem, text in (("0", "first"), ("0-again", "second")):
        row = caption("v", text)
        run.write("captions", stem, pa.Table.from_pylist([row], schema=SCHEMAS["captions"]))
    exported(run, tmp_path / "out.jsonl")
    assert [row["caption"] for row in jsonl_rows(tmp_path / "out.jsonl")] == ["second"]


def test_products_share_the_caption_of_a_view(run: Run, tmp_path: Path) -> None:
    put_products(run, [product(name, image(1, "v")) for name in ("a", "b", "c")])
    put_captions(run, [caption("v", "The same.")])
    exported(run, tmp_path / "out.jsonl")
    assert sorted(row["id"] for row in jsonl_rows(tmp_path / "out.jsonl")) == ["a", "b", "c"]


def export_command(run: Run, to: Path, *more: str) -> int:
    return caslie(["export", "--run", run.root, "--to", str(to), "--quiet", *more])


def test_the_exit_code_and_the_summary_tell_of_missing_captions(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop(run, products=10, captioned=0.5)
    assert export_command(run, tmp_path / "out.csv") == UNFINISHED
    assert "20 views are not captioned yet" in capsys.readouterr().out
    assert len(csv_rows(tmp_path / "out.csv")) == 10
    shop(run, products=10)
    assert export_command(run, tmp_path / "out.csv") == COMPLETE
    assert "not captioned" not in capsys.readouterr().out
    assert len(csv_rows(tmp_path / "out.csv")) == 20


def test_a_run_without_captions_gives_a_header(run: Run, tmp_path: Path) -> None:
    put_products(run, [product("mug", image(1, "v"))])
    assert export_command(run, tmp_path / "out.csv") == UNFINISHED
    header = "id,context,image,place,caption,verdict,yes_share,probabilities,error\r\n"
    assert (tmp_path / "out.csv").read_bytes().decode() == header


def test_a_run_of_the_seven_tasks_has_no_products(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_captions(run, [caption("v", "A caption.")])
    with pytest.raises(JobError, match="has no products: export needs a run whose source is a catalogue"):
        exported(run, tmp_path / "out.csv")
    assert export_command(run, tmp_path / "out.csv") == FAILED
    assert "the table captions" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_wrong_options_are_wrong_arguments(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop(run, products=2)
    assert export_command(run, tmp_path / "out.csv", "--context", "serach") == WRONG_ARGUMENTS
    assert "there are: alt_text, product" in capsys.readouterr().err


def test_credentials_of_the_target_are_in_no_summary(run: Run, tmp_path: Path) -> None:
    shop(run, products=2)
    exported(run, tmp_path / "out.csv")
    assert json.loads((tmp_path / "run/summary/export.json").read_text())["to"] == str(tmp_path / "out.csv")
