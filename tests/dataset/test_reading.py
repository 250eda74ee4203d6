"""Sources of every format and state, read row by row."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caslie_ray.dataset._columns import Columns, split_of_name
from caslie_ray.dataset._limits import DEFAULT, Limits
from caslie_ray.dataset._reading import Record, read_source
from caslie_ray.dataset._sources import find_sources
from caslie_ray.errors import SourceError
from caslie_ray.profiles import SourceKeys

COLUMNS = Columns.of(SourceKeys())


def row(number: int) -> str:
    nested = json.dumps({"q": 'a "quoted" \\ {brace} [bracket'})
    return json.dumps({"task": f"t{number}", "input": nested, "images": [{"path": "a"}, {"path": "b"}]})


def read(path: Path, data: bytes | str, limits: Limits = DEFAULT) -> list[Record]:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    files, _ = find_sources([str(path)])
    return list(read_source(files[0], COLUMNS, limits=limits))


def outcomes(records: list[Record]) -> list[str]:
    """The task of a row that was read, the head of the reason of one that was not."""
    return [
        str(record.row["task"]) if record.row is not None else (record.reason or "").split(":")[0] for record in records
    ]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", f"[{row(0)},\n {row(1)} , {row(2)}]\n"),
        ("a.json", "\n".join(row(n) for n in range(3))),
        ("a.jsonl", "\r\n".join(row(n) for n in range(3)) + "\r\n\n"),
        ("a.txt", f"[{row(0)},{row(1)},{row(2)}]"),
        ("a.json", "\n".join(json.dumps(json.loads(row(n)), indent=2) for n in range(3))),
        ("a.json", json.dumps([json.loads(row(n)) for n in range(3)], indent=2)),
        ("a.jsonl", f"[{row(0)},{row(1)},{row(2)}]"),
    ],
)
def test_json_in_every_layout(tmp_path: Path, name: str, text: str, packed: bool) -> None:
    data = gzip.compress(text.encode()) if packed else text.encode()
    assert outcomes(read(tmp_path / name, data)) == ["t0", "t1", "t2"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_files_that_announce_their_encoding(tmp_path: Path, encoding: str) -> None:
    assert outcomes(read(tmp_path / "a.json", f"[{row(0)},{row(1)}]".encode(encoding))) == ["t0", "t1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"[{row(0)}, {row(1)[:40]}", ["t0", "truncated file"]),
        (f"[{row(0)}, {row(1)}", ["t0", "t1", "truncated file"]),
        (f"[{row(0)}, {row(1)}] more", ["t0", "t1", "text after the array"]),
        (f"[{row(0)}, garbage, {row(1)}]", ["t0", "invalid JSON", "t1"]),
        (f'[{row(0)}, {{"task": "x", "images": [{{"a": 1}}, {{"b": oops}}]}}, {row(1)}]', ["t0", "invalid JSON", "t1"]),
        (f'[{row(0)}, {{"task": "x", "no": "end, "more": 1}}, {row(1)}, {row(2)}]', ["t0", "invalid JSON", "t1", "t2"]),
        (f'[{row(0)}, {{"task": "x", {row(1)}, {row(2)}]', ["t0", "invalid JSON", "t1", "t2"]),
        (f"[{row(0)}, 5, null, [1], {row(1)}]", ["t0", "no row", "no row", "no row", "t1"]),
        (f'[{{"task": "nan", "output": NaN, "x": -Infinity}}, {row(1)},]', ["nan", "t1"]),
        (f'[{{"task": "big", "x": {"9" * 5000}}}, {row(1)}]', ["invalid JSON", "t1"]),
        ("[" * 100_000, ["invalid JSON"]),
        ("[]", []),
    ],
)  # fmt: skip
def test_a_damaged_array_loses_only_what_is_damaged(tmp_path: Path, text: str, expected: list[str]) -> None:
    records = read(tmp_path / "a.json", text)
    assert outcomes(records) == expected
    assert all(record.location.startswith(str(tmp_path / "a.json")) for record in records)


def test_only_the_damaged_lines_are_lost(tmp_path: Path) -> None:
    lines = [row(0), "{bad", row(1), "", "[1]", "NaN", '{"a":' * 100_000, row(2)[:30], row(3)]
    records = read(tmp_path / "a.jsonl", "\n".join(lines))
    expected = ["t0", "invalid JSON", "t1", "no row", "no row", "invalid JSON", "invalid JSON", "t3"]
    assert outcomes(records) == expected
    assert [record.number for record in records] == [1, 2, 3, 5, 6, 7, 8, 9]
    assert records[1].location == f"{tmp_path / 'a.jsonl'}:2"


def test_an_invalid_first_line_does_not_hide_the_rest(tmp_path: Path) -> None:
    assert outcomes(read(tmp_path / "a.json", f"garbage\n{row(0)}\n{row(1)}")) == ["invalid JSON", "t0", "t1"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b" \n ", "empty file"),
        (b"<!doctype html><html></html>", "an HTML page"),
        (b"Notes on the task, and on the split.\n", "plain text; give CSV or TSV"),
        (b"<config><host>a</host></config>", "XML; give CSV"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not a data set"),
        (b"PAR1 and then nothing of the kind", "unreadable file"),
    ],
)
def test_a_file_that_is_no_data_set_is_one_reject(tmp_path: Path, data: bytes, reason: str) -> None:
    (record,) = read(tmp_path / "a.json", data)
    assert record.row is None
    assert reason in (record.reason or "")
    assert record.location == str(tmp_path / "a.json")


def test_bytes_that_are_no_text_reject_only_one_row(tmp_path: Path) -> None:
    assert outcomes(read(tmp_path / "a.json", b'[{"task": "a\x81"}, {"task": "b"}]')) == ["undecodable text", "b"]


def test_truncated_gzip_keeps_the_rows_before_the_cut(tmp_path: Path) -> None:
    pad = random.Random(0).randbytes(50).hex()
    whole = gzip.compress("\n".join([row(0), row(1), json.dumps({"task": "t2", "pad": pad})]).encode())
    records = read(tmp_path / "a.jsonl.gz", whole[:-30])
    assert outcomes(records)[:2] == ["t0", "t1"]
    assert outcomes(records)[-1] == "broken file"
    two = gzip.compress(row(0).encode() + b"\n") + gzip.compress(row(1).encode())
    assert outcomes(read(tmp_path / "two.jsonl.gz", two)) == ["t0", "t1"]


def test_rows_longer_than_the_window_are_read(tmp_path: Path) -> None:
    review = json.dumps({"task": "long", "review": "ever so good " * 250_000})
    assert outcomes(read(tmp_path / "a.json", f"[{row(0)},{review},{row(1)}]")) == ["t0", "long", "t1"]
    assert outcomes(read(tmp_path / "a.jsonl", f"{row(0)}\n{review}\n{row(1)}")) == ["t0", "long", "t1"]


def test_a_row_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    limits = replace(DEFAULT, row_bytes=1_000_000)
    endless = '{"task": "x", "review": "' + "y" * 5_000_000
    assert outcomes(read(tmp_path / "a.jsonl", f"{row(0)}\n{endless}\n{row(1)}", limits)) == [
        "t0",
        "row too long",
        "t1",
    ]
    assert outcomes(read(tmp_path / "a.json", f'[{row(0)},{endless}"}},{row(1)}]', limits)) == [
        "t0",
        "row too long",
        "t1",
    ]


def test_parquet(tmp_path: Path) -> None:
    table = pa.table({"Task": ["t0", "t1", None], "images": [[{"bytes": b"x", "path": "p"}], None, []]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    data = (tmp_path / "a.parquet").read_bytes()
    for name, content in [("a.parquet", data), ("b.parquet.gz", gzip.compress(data))]:
        records = read(tmp_path / name, content)
        assert outcomes(records) == ["t0", "t1", "None"]
        assert records[0].row is not None
        assert records[0].row["images"] == [{"bytes": b"x", "path": "p"}]
    assert outcomes(read(tmp_path / "c.parquet", data[:-10])) == ["unreadable file"]


def test_a_damaged_row_group_leaves_the_others(tmp_path: Path) -> None:
    table = pa.table({"task": [f"t{n}" for n in range(6)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2, compression="none", use_dictionary=False)
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    at = metadata.row_group(1).column(0).data_page_offset
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[at : at + 8] = b"\xff" * 8
    assert outcomes(read(tmp_path / "a.parquet", bytes(data))) == ["t0", "t1", "damaged Parquet", "t4", "t5"]


def test_folders_are_searched_and_images_skipped(tmp_path: Path) -> None:
    (tmp_path / "sub" / ".hidden").mkdir(parents=True)
    (tmp_path / "b.json").write_text(f"[{row(0)}]")
    (tmp_path / "sub" / "a.jsonl.gz").write_bytes(gzip.compress(row(1).encode()))
    (tmp_path / "sub" / "c.csv").write_text("task\nt2\n")
    (tmp_path / "sub" / "d.tsv.gz").write_bytes(gzip.compress(b"task\tsplit\nt3\ttrain\n"))
    (tmp_path / "sub" / "e.xml").write_text("<rows><item><task>t4</task></item></rows>")
    (tmp_path / "sub" / "picture.jpg").write_bytes(b"...")
    (tmp_path / "sub" / "table.txt").write_text("task\tsplit\nt3\ttrain\n")
    (tmp_path / "sub" / ".hidden" / "c.json").write_text("[]")
    files, ignored = find_sources([str(tmp_path), str(tmp_path / "b.json")])
    names = ["b.json", "sub/a.jsonl.gz", "sub/c.csv", "sub/d.tsv.gz", "sub/e.xml"]
    assert [file.name for file in files] == [f"{tmp_path}/{name}" for name in names]
    assert [outcomes(list(read_source(file, COLUMNS))) for file in files] == [[f"t{number}"] for number in range(5)]
    assert ignored.others == 2


def test_a_uri_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b" / "rows.json").write_text(f"[{row(0)}]")
    files, _ = find_sources([f"file://{tmp_path}/a%20b"])
    assert outcomes(list(read_source(files[0], COLUMNS))) == ["t0"]


@pytest.mark.parametrize("source", ["nowhere.json", "https://example.com/rows.json", "empty", "what://is/this"])
def test_missing_sources_are_refused(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=source.split(":")[0]):
        find_sources([source])


def test_columns_by_their_usual_names_and_by_configured_ones() -> None:
    given: dict[str, Any] = {"Task Name": "AP", "Image-URL": "u", "captions": None, "Answer": "yes", "text": "d"}
    read_as = COLUMNS.read(given, "train")
    assert read_as == {
        "task": "AP", "images": "u", "caption_info": None, "output": "yes", "split": "train",
        "other_columns": {"text": "d"},
    }  # fmt: skip
    keys = SourceKeys(task="job", images="pictures", fields={"passage": "document"})
    columns = Columns.of(keys)
    cells = {"job": "AP", "task": "other", "pictures": ["p"], "split": "ood", "input": '{"passage": "d"}'}
    assert columns.read(cells, "train") == {
        "task": "AP",
        "images": ["p"],
        "split": "ood",
        "input": {"document": "d"},
    }


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.json", "train"),
        ("x/ood_test.jsonl", "ood"),
        ("val-00000-of-00001.parquet", "validation"),
        ("in-domain-test.json.gz", "ind"),
        ("dataset.json", None),
        ("testing_notes.json", None),
    ],
)
def test_splits_by_file_name(name: str, split: str | None) -> None:
    assert split_of_name(name) == split
