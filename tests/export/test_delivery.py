"""From parts to the target: files, folders, and stores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from caslie_ray.errors import JobError
from caslie_ray.export import _delivery
from caslie_ray.export._delivery import STAMP
from caslie_ray.storage.run import Run, open_run
from tests.export.shop import csv_rows, exported, shop
from tests.object_store import ObjectStore, object_store_in_environment


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = open_run(str(tmp_path / "run"))
    shop(run)
    return run


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with object_store_in_environment(["shop"]) as store:
        yield store


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_has_a_file_per_partition_with_rows(run: Run, tmp_path: Path) -> None:
    exported(run, tmp_path / "out.csv")
    out = tmp_path / "out"
    exported(run, out, format="csv")
    partitions = len(run.by_partition("products"))
    parts = [f"part-{n:05}.csv" for n in range(partitions)]
    assert names(out) == [STAMP, *parts]
    rows = [row for part in parts for row in csv_rows(out / part)]
    assert rows == csv_rows(tmp_path / "out.csv")
    assert json.loads((out / STAMP).read_text()) == {"job": "export", "files": parts}


def test_partitions_without_rows_have_no_file(run: Run, tmp_path: Path) -> None:
    one = sorted(run.by_partition("products"))[0]
    product = run.read("products", partition=one)["product_id"][0].as_py()
    for path in run.files("captions"):
        rows = run.read_file(path)
        keep = [name.startswith(f"{product}-") for name in rows["view_id"].to_pylist()]
        run.write("captions", run.stem(path), rows.filter(keep))
    exported(run, tmp_path / "out")
    assert names(tmp_path / "out") == [STAMP, "part-00000.parquet"]


def test_an_export_without_rows_has_columns(run: Run, tmp_path: Path) -> None:
    run.delete(run.files("captions"))
    exported(run, tmp_path / "out")
    assert pq.read_table(tmp_path / "out/part-00000.parquet").num_rows == 0
    exported(run, tmp_path / "out.parquet")
    assert pq.read_schema(tmp_path / "out.parquet").names[0] == "id"


def test_files_of_an_earlier_export_are_removed_and_no_others(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    exported(run, out, format="csv")
    for mine in ("mine.csv", "part-99999.csv"):
        (out / mine).write_text("mine")
    exported(run, out, format="jsonl")
    parts = len(run.by_partition("products"))
    assert names(out) == sorted([STAMP, "mine.csv", "part-99999.csv", *(f"part-{n:05}.jsonl" for n in range(parts))])


def test_a_stamp_that_names_other_files_deletes_none(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "precious").write_text("mine")
    (out / "README.md").write_text("mine")
    listed = ["../precious", str(tmp_path / "precious"), "README.md", "data/../../precious", 3, None]
    (out / STAMP).write_text(json.dumps({"files": listed}))
    exported(run, out)
    assert (tmp_path / "precious").read_text() == (out / "README.md").read_text() == "mine"
    others: tuple[Any, ...] = ([], 3, {"files": 3})
    for other in others:
        (out / STAMP).write_text(json.dumps(other))
        exported(run, out)


def test_parts_of_a_killed_export_are_removed_by_the_next(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    real = _delivery._write

    def killed(run: Run, target: Any, path: str, *more: Any) -> None:
        if path.endswith("part-00003.csv"):
            raise KeyboardInterrupt
        real(run, target, path, *more)

    monkeypatch.setattr(_delivery, "_write", killed)
    with pytest.raises(KeyboardInterrupt):
        exported(run, out, format="csv")
    monkeypatch.undo()
    assert len(names(out)) == 4
    run.delete(run.files("products"))
    shop(run, products=1)
    exported(run, out, format="csv")
    assert names(out) == [STAMP, "part-00000.csv"]


def test_a_file_is_replaced(run: Run, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/out.csv").write_text("another program's")
    exported(run, tmp_path / "new/out.csv")
    assert len(csv_rows(tmp_path / "new/out.csv")) == 80
    assert names(tmp_path / "new") == ["out.csv"]


def test_a_data_set_has_a_card(run: Run, tmp_path: Path) -> None:
    run.write_json("summary/caption.json", {"engines": {"ec3": "vllm"}})
    summary = exported(run, tmp_path / "out", format="dataset")
    files = sorted((tmp_path / "out/data").iterdir())
    assert sum(pq.read_metadata(path).num_rows for path in files) == summary["rows"] == 80
    text = (tmp_path / "out/README.md").read_text()
    assert f"download_size: {sum(path.stat().st_size for path in files)}\n" in text
    assert "- captions that won: 80 (50.0%)\n- models: `ec3`\n" in text


def test_exports_to_an_object_store(run: Run, tmp_path: Path, store: ObjectStore) -> None:
    exported(run, tmp_path / "out.csv")
    uri = store.uri("shop", "out.csv").replace("s3://", "s3://testing:testing@")
    summary = exported(run, uri)
    assert summary["to"] == "s3://shop/out.csv"
    assert store.keys("shop") == {"out.csv": (tmp_path / "out.csv").stat().st_size}
    exported(run, store.uri("shop", "parts/"), format="csv")
    partitions = len(run.by_partition("products"))
    assert len(store.keys("shop")) == 1 + partitions + 1


def test_a_file_that_s3_cannot_rename_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch, store: ObjectStore) -> None:
    monkeypatch.setattr(_delivery, "_LARGEST_ON_S3", 100)
    with pytest.raises(JobError, match=r"too large for one file on S3: .*end the name in / for a folder"):
        exported(run, store.uri("shop", "large.csv"))
    assert "large.csv" not in store.keys("shop")
