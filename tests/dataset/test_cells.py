"""Realistic sources through a complete `ingest` on Ray: other ids, columns, cells and images."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caslie_ray.dataset import IngestSummary, ingest
from caslie_ray.dataset.summary_lines import summary_lines
from caslie_ray.hashing import content_id
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run, open_run
from tests.dataset.world import category, encoded, picture, png, write_json

pytestmark = pytest.mark.usefixtures("ray_cluster")


def bring(run: Run, profile: Profile, *sources: str) -> IngestSummary:
    return ingest(run, sources, profile, quiet=True)


def rows(run: Run, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run.read(table).to_pylist()
    return found


def question(output: object, split: str = "train", **cells: Any) -> dict[str, Any]:
    return {
        "task": "PSI",
        "split": split,
        "input": {"query": "drill", "product title": f"Drill {output!r}"},
        "options": ["yes", "no"],
        "output": output,
        "images": ["a.png"],
        **cells,
    }


def with_id_column(profile: Profile, name: str) -> Profile:
    keys = profile.ingest.keys.model_copy(update={"id": name})
    return profile.model_copy(update={"ingest": profile.ingest.model_copy(update={"keys": keys})})


def test_the_ids_of_a_source_are_kept(tmp_path: Path, profile: Profile) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    data = [
        category("drill", "a.png", id=7),
        category("saw", "a.png", id="s-1", sku="S1"),
        category("drill", "a.png", id="again"),
        category("drill", "a.png", id=7),
        category("drill", "a.png", "test", id="leak"),
        category("", "a.png", id="empty"),
        category("lost", "none.png", sku="L1"),
        category("bare", "a.png"),
    ]
    source = write_json(tmp_path / "rows.json", data)
    run = open_run(str(tmp_path / "run"))
    bring(run, profile, source)
    ids = {row["input"][0]["text"]: row["source_ids"] for row in rows(run, "samples")}
    assert ids == {"drill": ["7", "again"], "saw": ["s-1"], "lost": ["L1"], "bare": None}
    rejects = {row["source_id"]: row["reason"].split(":")[0] for row in rows(run, "rejects")}
    assert rejects == {
        "leak": "repeated in split ind",
        "empty": "input field 'title' is empty",
        "L1": "missing file",
    }

    # They are no part of a sample: another column of ids changes nothing else.
    other = open_run(str(tmp_path / "other"))
    bring(other, with_id_column(profile, "sku"), source)
    by_id = {row["sample_id"]: row for row in rows(run, "samples")}
    for row in rows(other, "samples"):
        assert row | {"source_ids": None} == by_id[row["sample_id"]] | {"source_ids": None}
    assert ["S1"] in [row["source_ids"] for row in rows(other, "samples")]

    # Whole numbers of a column in which some are missing are whole numbers.
    table = pa.table({"id": [12.0, None], "task": ["SA"] * 2, "split": ["train"] * 2, "input": ["a", "b"],
                      "output": ["positive"] * 2})  # fmt: skip
    pq.write_table(table, tmp_path / "rows.parquet")
    bring(other, profile, str(tmp_path / "rows.parquet"))
    assert {row["input"][0]["text"]: row["source_ids"] for row in rows(other, "samples")} == {"a": ["12"], "b": None}


def test_a_table_that_was_written_before_the_column_is_left_alone(tmp_path: Path, profile: Profile) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    source = write_json(tmp_path / "rows.json", [category(f"title {n}", "a.png") for n in range(20)])
    run = open_run(str(tmp_path / "run"))
    bring(run, profile, source)
    for path in run.files("samples"):
        pq.write_table(pq.read_table(path).drop_columns(["source_ids"]), path)
    assert bring(run, profile, source).written_files == 0
    assert {row["source_ids"] and tuple(row["source_ids"]) for row in rows(run, "samples")} == {None}


def test_unexpected_interpretations_are_counted_and_reported(tmp_path: Path, profile: Profile) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    flat = {key: cell for key, cell in category("x", "a.png").items() if key != "input"}
    data = [
        question(True),
        question("N", caption_info=["NA"]),
        question("maybe"),
        question("perhaps: not"),
        question("yes"),
        flat | {"title": "A drill", "price": 3},
        flat | {"price": 3},
    ]
    run = open_run(str(tmp_path / "run"))
    summary = bring(run, profile, write_json(tmp_path / "rows.json", data))
    assert {way: cell["rows"] for way, cell in summary.read_as.items()} == {
        "captions of NA, nan, None or null taken as missing": 1,
        "inputs read from the row's own columns": 1,
        "outputs of true/false, 1/0 or Y/N read as yes/no": 2,
    }
    assert summary.reject_reasons["sample"] == {"output is none of the options": 2, "input is missing": 1}
    assert {row["output"] for row in rows(run, "samples")} == {"yes", "no", "Saws"}
    reasons = [row["reason"] for row in rows(run, "rejects")]
    assert "output 'maybe' is none of the options: yes, no; give one of them" in reasons
    assert "input is missing: put its fields into an object `input`; other columns are price" in reasons
    # "NA" is no caption of the view.
    assert {view["given_caption"] for view in rows(run, "views") if "'N'" in view["caption_prompt"]} == {None}
    said = "\n".join(summary_lines(summary.as_dict()))
    assert "2  read as: outputs of true/false, 1/0 or Y/N" in said


def test_images_as_text_and_in_objects(tmp_path: Path, profile: Profile) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    jpeg = encoded(picture(2), "JPEG")
    text = base64.b64encode(jpeg).decode()
    small = profile.model_copy(update={"images": profile.images.model_copy(update={"max_bytes": 10_000})})
    large = base64.b64encode(encoded(picture(3, (300, 300)), "BMP")).decode()
    cells: list[Any] = [
        text,
        "data:image/jpeg;base64," + text.rstrip("="),
        {"src": "a.png"},
        {"alt": "mug"},
        large,
        "x" * 5000,
    ]
    data = [category(f"title {n}", None, images=[cell]) for n, cell in enumerate(cells)]
    run = open_run(str(tmp_path / "run"))
    bring(run, small, write_json(tmp_path / "rows.json", data))
    assert {content_id(png(1)), content_id(jpeg)} == {image["image_id"] for image in rows(run, "images")}
    lost = {row["reason"].split(":")[0]: row for row in rows(run, "rejects")}
    assert lost.keys() == {"unsupported image object", "too many bytes", "unsupported reference"}
    assert "(alt)" in lost["unsupported image object"]["reason"]
    assert all(len(row["source"]) <= 100 for row in lost.values())
