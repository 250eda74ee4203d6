"""Source files made to take gigabytes or hours, each with what becomes of it and at what cost."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caslie_ray.dataset import ingest
from caslie_ray.dataset._columns import Columns
from caslie_ray.dataset._limits import DEFAULT, Limits, OverLimit, Ratio
from caslie_ray.dataset._parquet import read_rows
from caslie_ray.dataset._parse import Chunk, chunks
from caslie_ray.dataset._reading import read_source
from caslie_ray.dataset._shapes import Damage
from caslie_ray.dataset._sources import SourceFile, find_sources
from caslie_ray.profiles import SourceKeys, load_profile
from caslie_ray.storage.run import open_run
from tests.dataset.world import category, png, write_json
from tests.hostile.sources import (
    claiming,
    claiming_page,
    deep_lists,
    encrypted,
    in_members,
    overlapping,
    packed,
    parquet,
    repeated,
    rows,
    with_cell,
)
from tests.measuring import measured

COLUMNS = Columns.of(SourceKeys())
MB = 1 << 20
MIB = "x" * MB


class Hostile(NamedTuple):
    """A source file, and what is to become of it.

    Attributes:
        file: its name.
        make: returns its content.
        rows: how many rows are read.
        reason: what each reason of a reject contains; None where there is no reject.
        seconds: how long that may take.
        mib: MiB of memory that it may take.
        rejects: how many rejects there are at most.
    """

    file: str
    make: Callable[[], str | bytes]
    rows: int
    reason: str | None
    seconds: float
    mib: float
    rejects: int = 1


def around(text: str) -> str:
    """An array with a row before the text and one behind it."""
    return f"[{with_cell('1')},{text},{with_cell('2')}]"


TABLE = {
    "dictionary of one long text": Hostile(
        "a.parquet", lambda: parquet({"task": repeated(MIB * 20, 96)}), 0, "max_ratio", 10, 300
    ),
    "dictionary of a text of 8 MiB": Hostile(
        "a.parquet", lambda: parquet({"task": repeated(MIB * 8, 64)}), 2, "max_ratio", 10, 200
    ),
    "dictionary in a list of one row": Hostile(
        "a.parquet", lambda: parquet({"task": ["x"], "images": repeated(MIB * 8, 1000, 1000)}), 0, "too long", 10, 200
    ),
    "delta encoding of one long text": Hostile(
        "a.parquet",
        lambda: parquet({"task": [MIB] * 64}, use_dictionary=False, column_encoding={"task": "DELTA_BYTE_ARRAY"}),
        16,
        "max_ratio",
        10,
        250,
    ),
    "delta encoding in a list of one row": Hostile(
        "a.parquet",
        lambda: parquet(
            {"task": ["x"], "images": [[MIB] * 1000]},
            use_dictionary=False,
            column_encoding={"images.list.element": "DELTA_BYTE_ARRAY"},
        ),
        0,
        "refused",
        10,
        100,
    ),
    "fixed width of nulls": Hostile(
        "a.parquet",
        lambda: parquet({"task": ["x"] * 2, "wide": pa.nulls(2, pa.binary(140 * MB))}),
        0,
        "refused",
        10,
        200,
    ),
    "page of zeros": Hostile(
        "a.parquet", lambda: parquet({"task": [b"\0" * 40 * MB]}, use_dictionary=False), 0, "max_ratio", 10, 100
    ),
    "page that claims 2 GiB": Hostile("a.parquet", lambda: claiming_page(1 << 31), 0, "max_row_bytes", 10, 100),
    "a hundred million nulls": Hostile(
        "a.parquet",
        lambda: overlapping(parquet({"task": pa.nulls(MB, pa.int32())}), 100),
        0,
        "max_ratio|no column",
        10,
        100,
        20_000,
    ),
    "two billion rows claimed": Hostile("a.parquet", lambda: claiming(123_457, 1 << 31), 17_000, "max_ratio", 20, 150),
    "footer of 2 GiB": Hostile(
        "a.parquet", lambda: parquet({"task": ["x"]})[:-8] + b"\xff\xff\xff\x7fPAR1", 0, "unreadable file", 5, 50
    ),
    "damaged footer": Hostile(
        "a.parquet",
        lambda: parquet({"task": ["x"]})[:-60] + b"\xff" * 52 + b"\x20\0\0\0PAR1",
        0,
        "unreadable file",
        5,
        50,
    ),
    "columns by the ten thousand": Hostile(
        "a.parquet", lambda: parquet({f"c{n}": [1] for n in range(12_000)}), 0, "max_columns", 20, 300
    ),
    "lists a thousand deep": Hostile(
        "a.parquet", lambda: parquet({"task": ["x"], "deep": deep_lists(1000)}), 0, "nested", 5, 50
    ),
    "encrypted columns": Hostile(
        "a.parquet", lambda: encrypted({"task": ["x"]}, plaintext_footer=True), 0, "encrypted", 5, 50
    ),
    "encrypted footer": Hostile(
        "a.parquet", lambda: encrypted({"task": ["x"]}, plaintext_footer=False), 0, "not a data set", 5, 50
    ),
    "gzip of a file like Parquet": Hostile(
        "a.parquet.gz", lambda: packed(b"PAR1" + b"\0" * MB, 60), 0, "max_ratio", 10, 50
    ),
    "small objects in a line": Hostile(
        "a.jsonl.gz", lambda: packed('{"task":1,"a":[' + '{"a":1},' * 4_000_000 + "{}]}"), 0, "max_ratio", 10, 150
    ),
    "small objects in a line, unpacked": Hostile(
        "a.jsonl", lambda: '{"task":1,"a":[' + "{}," * 7_000_000 + "{}]}", 0, "max_row_values", 10, 150
    ),
    "small objects in an array": Hostile(
        "a.json", lambda: around('{"task":1,"a":[' + "{}," * 7_000_000 + "{}]}"), 2, "max_row_values", 10, 250
    ),
    "keys by the million in a row": Hostile(
        "a.json",
        lambda: around('{"task":1,' + ",".join(f'"{n}":1' for n in range(1_200_000)) + "}"),
        2,
        "max_row_values",
        20,
        250,
    ),
    "one key by the million": Hostile(
        "a.jsonl", lambda: '{"task":"SA",' + '"a":1,' * 900_000 + '"b":1}', 1, None, 10, 100
    ),
    "objects in one another": Hostile("a.json", lambda: "[" + '{"a":' * 100_000, 0, "nested", 5, 80),
    "objects in one another, with their ends": Hostile(
        "a.json", lambda: around('{"a":' * 100_000 + "1" + "}" * 100_000), 2, "nested", 5, 80
    ),
    "objects in one another in a damaged row": Hostile(
        "a.json", lambda: around('{"a"=' + '{"a":[1,1,1,1' * 100_000), 2, "nested|invalid|broken", 15, 80, 3
    ),
    "long objects in one another in a damaged row": Hostile(
        "a.json", lambda: around('{"a"=' + ('{"a":[' + "1," * 20_000) * 90), 1, "invalid|broken", 15, 120, 3
    ),
    "damaged rows by the ten thousand": Hostile(
        "a.json",
        lambda: "[" + '{"task":x},{"task":1},' * 20_000 + "]",
        20_000,
        "invalid JSON|truncated",
        20,
        80,
        20_000,
    ),
    "lists in one another": Hostile("a.json", lambda: around("[" * 200_000 + "]" * 200_000), 2, "nested", 5, 80),
    "lists in one another in a line": Hostile(
        "a.jsonl", lambda: f"{with_cell('1')}\n{with_cell('[' * 500 + ']' * 500)}\n{with_cell('2')}", 2, "nested", 5, 50
    ),
    "a million empty rows": Hostile(
        "a.jsonl.gz", lambda: packed("{}\n", 1_050_000), 0, "no row|max_ratio|column", 10, 60, 20_000
    ),
    "spaces": Hostile("a.json.gz", lambda: packed(" " * MB, 60), 0, "max_ratio|empty|not a data set", 10, 60),
    "zeros": Hostile("a.jsonl.gz", lambda: packed(b"\0" * MB, 60), 0, "max_ratio|not a data set", 10, 100),
    "a string without end": Hostile("a.json.gz", lambda: packed('[{"task":"' + MIB * 60), 0, "max_ratio", 10, 150),
    "quotes": Hostile("a.json.gz", lambda: packed("[" + '"' * MB * 40), 0, "max_ratio|invalid|no row", 20, 150, 30_000),
    "braces": Hostile("a.json", lambda: "[" + "{" * 3 * MB, 0, "invalid|broken|truncated", 10, 80, 3),
    "gzip of gzip": Hostile("a.json.gz", lambda: packed(packed("{}\n", 1000)), 0, "not a data set", 5, 50),
    "ten thousand gzip members": Hostile("a.jsonl.gz", lambda: in_members(rows(3).encode(), 10_000), 3, None, 5, 50),
    "truncated gzip": Hostile("a.jsonl.gz", lambda: packed(rows(1000))[:-100], -1, "ends early", 5, 50),
    "a number of a million digits": Hostile("a.json", lambda: around(with_cell("7" * MB)), 2, "digits", 5, 50),
    "a fraction of a million digits": Hostile("a.json", lambda: around(with_cell("7" * MB + ".5")), 2, "digits", 5, 50),
    "a number beyond all": Hostile("a.json", lambda: around(with_cell("1e999999")), 3, None, 5, 50),
    "lone surrogates and NUL": Hostile("a.json", lambda: around(with_cell('"\\ud800\\u0000"')), 3, None, 5, 50),
    "columns of a million cells": Hostile(
        "a.json", lambda: '{"task":[' + "1," * 1_200_000 + "1]}", 0, "columns too long", 10, 150
    ),
}


class Honest(NamedTuple):
    """A Parquet file that takes little memory, though it may not look so.

    Attributes:
        make: returns its content.
        rows: how many rows it has.
        batches: in how many batches they are decoded at most.
    """

    make: Callable[[], bytes]
    rows: int
    batches: int


TEXTS = [f"{number:05d} is the number of a product" for number in range(20_000)]
URLS = [[f"https://images.example.com/{row:06d}/{number}.jpg" for number in range(10)] for row in range(2000)]

HONEST = {
    "large dictionaries": Honest(
        lambda: parquet(
            {"task": TEXTS[:2000]} | {f"c{n}": pa.array(TEXTS).dictionary_encode()[n : 2000 + n] for n in range(60)}
        ),
        2000,
        16,
    ),
    "dictionaries that end early": Honest(
        lambda: parquet({"task": TEXTS, **{f"c{n}": TEXTS for n in range(20)}}, dictionary_pagesize_limit=400_000),
        20_000,
        160,
    ),
    "lists in delta encoding": Honest(
        lambda: parquet(
            {"task": ["x"] * 2000, "images": URLS},
            use_dictionary=False,
            column_encoding={"images.list.element": "DELTA_BYTE_ARRAY"},
        ),
        2000,
        16,
    ),
    "lists in pages of version 2": Honest(
        lambda: parquet(
            {"task": ["x"] * 2000, "images": URLS},
            use_dictionary=False,
            column_encoding={"images.list.element": "DELTA_BYTE_ARRAY"},
            data_page_version="2.0",
        ),
        2000,
        16,
    ),
    "lists in dictionaries": Honest(lambda: parquet({"task": ["x"] * 2000, "images": URLS}), 2000, 16),
    "one instruction for all": Honest(
        lambda: parquet({"task": ["x"] * 20_000, "instruction": ["Describe it. " * 170] * 20_000}), 20_000, 160
    ),
}


def values(path: Path, limits: Limits = DEFAULT) -> list[object]:
    """Return the rows of a Parquet file, without what `read_source` counts."""
    with pa.OSFile(str(path)) as file:
        return [value for _, value, *_ in read_rows(file, limits, Ratio(limits))]


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_source_is_read_in_large_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    content, rows, batches = HONEST[name].make(), HONEST[name].rows, HONEST[name].batches
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    decoded: list[int] = []
    iter_batches = pq.ParquetFile.iter_batches

    def counted(*arguments: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        for batch in iter_batches(*arguments, **options):
            decoded.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    found = values(path)
    assert not [value for value in found if isinstance(value, Damage)]
    assert len(found) == rows
    assert len(decoded) <= batches + 1


def test_columns_of_nulls_are_not_refused_as_a_bomb() -> None:
    rows = 200_000
    content = parquet({"task": ["x"] * rows, **{f"c{n}": pa.nulls(rows, pa.string()) for n in range(60)}})
    with pa.BufferReader(content) as file:
        first = next(read_rows(file, DEFAULT, Ratio(DEFAULT)))
    assert first.value == {"task": "x", **dict.fromkeys((f"c{n}" for n in range(60)), None)}


def test_a_page_of_images_may_be_large(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    limits = replace(DEFAULT, row_bytes=1 << 16)
    images = [os.urandom(8 << 10) for _ in range(1024)]
    path.write_bytes(parquet({"image": images}, use_dictionary=False))
    assert values(path, limits) == [{"image": image} for image in images]
    path.write_bytes(parquet({"image": [bytes(8 << 10)] * 1024}, use_dictionary=False))
    with pytest.raises(OverLimit, match="a page of column 'image'"):
        values(path, limits)


def read(path: str) -> tuple[int, dict[str, int]]:
    """Return the number of rows, and of rejects by reason."""
    (file,), _ = find_sources([path])
    found = 0
    reasons: Counter[str] = Counter()
    for record in read_source(file, COLUMNS):
        if record.row is None or not record.row.get("task"):
            reasons[record.reason or "no row: it has no column task"] += 1
        else:
            found += 1
    return found, dict(reasons)


@pytest.mark.parametrize("name", TABLE)
def test_a_hostile_source_costs_little_and_is_refused(tmp_path: Path, name: str) -> None:
    given = TABLE[name]
    content = given.make()
    path = tmp_path / given.file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    del content
    outcome = measured(read, str(path), timeout_s=4 * given.seconds)
    assert outcome.error is None
    found, reasons = outcome.value
    if given.reason is None:
        assert (found, reasons) == (given.rows, {})
    else:
        assert reasons
        assert sum(reasons.values()) <= given.rejects
        assert all(any(part in reason for part in given.reason.split("|")) for reason in reasons), reasons
        assert given.rows < 0 or found == given.rows or (given.rows > 10_000 and found < given.rows)
    assert outcome.cost.seconds < given.seconds
    assert outcome.cost.mib < given.mib


@pytest.mark.parametrize("path", ["/dev/zero", "pipe"])
def test_what_is_no_regular_file_is_refused_and_not_opened(tmp_path: Path, path: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    outcome = measured(read, str(tmp_path / path), timeout_s=20)
    assert outcome.error is not None
    assert "no regular file" in outcome.error
    assert outcome.cost.seconds < 5


def test_a_temporary_file_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet.gz"
    path.write_bytes(packed(parquet({"task": ["x"], "noise": [os.urandom(3 * MB)]})))
    file = find_sources([str(path)])[0][0]
    for size, expected in ((2 * MB, "max_temporary_bytes"), (4 * MB, None)):
        (record,) = read_source(file, COLUMNS, limits=replace(DEFAULT, temporary_bytes=size))
        assert (record.row is None, record.limited) == (expected is not None, expected is not None)
        assert expected is None or expected in str(record.reason)


def test_a_file_may_have_so_many_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(rows(10))
    file = find_sources([str(path)])[0][0]
    *before, last = read_source(file, COLUMNS, limits=replace(DEFAULT, rows=7))
    assert len(before) == 7
    assert all(record.row is not None for record in before)
    assert (last.row, last.limited) == (None, True)
    assert "max_rows" in str(last.reason)


@pytest.mark.usefixtures("ray_cluster")
def test_a_hostile_source_does_not_affect_other_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One job: two honest sources, some hostile ones, and one whose reader dies each time."""

    def deadly(job: tuple[SourceFile, str], **settings: Any) -> Iterator[Chunk]:
        if job[0].name.endswith("deadly.jsonl"):
            os._exit(1)
        return chunks(job, **settings)

    hostile = (
        "dictionary of a text of 8 MiB",
        "page that claims 2 GiB",
        "small objects in a line, unpacked",
        "objects in one another",
        "a million empty rows",
        "encrypted columns",
        "a string without end",
    )
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "deadly.jsonl").write_text(rows(5))
    for number, name in enumerate(hostile):
        content = TABLE[name].make()
        path = folder / f"{number}-{TABLE[name].file}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in ("a-honest.json", "z-honest.json"):
        write_json(folder / name, [category(f"{name} {n}", f"{n}.png") for n in range(40)])
    for n in range(40):
        (folder / f"{n}.png").write_bytes(png(n))
    (folder / "deep.jsonl").write_text(with_cell("[" * 60 + "]" * 60))
    profile, wider = (load_profile("mini", [f"ingest.max_nesting={levels}"]) for levels in (50, 90))
    run = open_run(str(tmp_path / "run"))
    started = time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr("caslie_ray.dataset._parse_files.chunks", deadly)
        summary = ingest(run, [str(folder)], profile, quiet=True)
    assert time.monotonic() - started < 240
    assert (summary.samples, summary.images) == (80, 40)
    reasons = run.read("rejects")["reason"].to_pylist()
    for part in ("ended its process", "max_ratio", "max_row_bytes", "max_row_values", "nested", "encrypted"):
        assert any(part in reason for reason in reasons), part
    # The file whose reader died is read again by the next run, and what is over a limit once that is raised.
    again = ingest(run, [str(folder)], profile, quiet=True)
    assert again.parsed_rows == 5
    assert any("more than 50 levels" in reason for reason in reasons)
    assert ingest(run, [str(folder)], wider, quiet=True).parsed_rows > 0
    assert not any("more than 50 levels" in reason for reason in run.read("rejects")["reason"].to_pylist())
    assert ingest(run, [str(folder)], wider, quiet=True).parsed_rows == 0
