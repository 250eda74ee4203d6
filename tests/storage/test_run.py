"""The tables of a run: writes are atomic, and readers take one row per id."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]  # it has none
from hypothesis import given, settings
from hypothesis import strategies as st

from caslie_ray.errors import DamagedFile, RunError, RunLost, StoreError
from caslie_ray.storage.damaged_files import keep_copy
from caslie_ray.storage.filesystems import open_path
from caslie_ray.storage.latest_rows import latest_rows
from caslie_ray.storage.lease_files import Fence
from caslie_ray.storage.partitions import partition_names, partition_of
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import IDS, SCHEMAS

ROOT = Path(__file__).parents[2]


class ObjectStore(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Says that it is S3, and writes down the names that are written to."""

    protocol: ClassVar[str] = "s3"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    opened: ClassVar[list[str]] = []

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if "w" in mode:
            self.opened.append(path)
        return super()._open(path, mode, **options)


def in_memory(fs: MemoryFileSystem, name: str) -> Run:
    return Run(pafs.PyFileSystem(pafs.FSSpecHandler(fs)), f"/{name}", f"memory://{name}")


def local(tmp_path: Path) -> Run:
    return open_run(str(tmp_path / "run"))


def subtree(tmp_path: Path) -> Run:
    return Run(pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()), "run", "subtree")


def memory(tmp_path: Path) -> Run:
    return in_memory(MemoryFileSystem(skip_instance_cache=True), tmp_path.name)


def object_store(tmp_path: Path) -> Run:
    return in_memory(ObjectStore(skip_instance_cache=True), tmp_path.name)


@pytest.fixture(params=[local, subtree, memory, object_store])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    make: Callable[[Path], Run] = request.param
    return make(tmp_path)


def images(*ids: str, width: int = 1) -> pa.Table:
    rows = [{"image_id": image_id, "image": image_id.encode(), "width": width, "height": 2} for image_id in ids]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["images"])


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_is_written_is_read(run: Run) -> None:
    run.write("images", "0a", images("0a1", "0a2"))
    run.write("images", "ff", images("ff1"))
    assert sorted(run.read("images")["image_id"].to_pylist()) == ["0a1", "0a2", "ff1"]
    assert run.read("images", partition="ff").to_pylist() == images("ff1").to_pylist()
    assert [run.partition(path) for path in run.files("images", "ff")] == ["ff"]
    assert sum(run.count_rows(path) for path in run.files("images")) == 3


def test_a_name_written_again_is_overwritten(run: Run) -> None:
    run.write("images", "0a", images("0a1", "0a2"))
    run.write("images", "0a", images("0a2", width=9))
    assert len(run.files("images")) == 1
    assert run.read("images", ["image_id", "width"]).to_pylist() == [{"image_id": "0a2", "width": 9}]


def test_deleting_a_missing_file_is_no_error(run: Run) -> None:
    path = run.write("images", "0a", images("0a1"))
    run.delete([path, path, run.path("images", "never.parquet")])
    assert run.files("images") == []


def test_json(run: Run) -> None:
    assert run.read_json("summary/job.json") is None
    run.write_json("summary/job.json", {"κ": [1, None, "😀"]})
    assert run.read_json("summary/job.json") == {"κ": [1, None, "😀"]}
    with pytest.raises(ValueError, match="Out of range"):
        run.write_json("summary/job.json", float("nan"))
    assert run.read_json("summary/job.json") == {"κ": [1, None, "😀"]}


def test_an_object_store_gets_a_single_put(tmp_path: Path) -> None:
    run = object_store(tmp_path)
    ObjectStore.opened.clear()
    path = run.write("images", "0a", images("0a1"))
    assert ObjectStore.opened == [path]


def test_opening_creates_nothing(tmp_path: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    assert run.files("images") == []
    assert run.read("images").schema == SCHEMAS["images"]
    assert run.read("captions", ["verdict"]).num_rows == 0
    assert not (tmp_path / "run").exists()


def test_paths_and_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_run("runs/one/").root == f"{tmp_path}/runs/one"
    assert open_run("~/one").root == f"{tmp_path}/home/one"
    assert open_run(f"file://{tmp_path}/one").root == f"{tmp_path}/one"
    assert open_run("runs/one/").uri == "runs/one/"
    with pytest.raises(RunError, match="cannot open nowhere://bucket/run"):
        open_path("nowhere://bucket/run")


def test_partitions() -> None:
    assert [partition_of("3fa0", digits) for digits in (0, 1, 2)] == ["all", "3", "3f"]
    assert partition_names(0) == ["all"]
    assert partition_names(1) == list("0123456789abcdef")
    assert len(set(partition_names(2))) == 256
    assert [Run.partition(f"/a-b/t/{name}.parquet") for name in ("3f", "3f-late", "3f-a-b")] == ["3f"] * 3


def test_the_partition_is_the_name_before_the_dash(tmp_path: Path) -> None:
    run = local(tmp_path)
    for stem in ("3", "3-late", "3f"):
        run.write("images", stem, images(stem))
    assert sorted(run.read("images", ["image_id"], "3")["image_id"].to_pylist()) == ["3", "3-late"]


def test_one_row_per_id_and_the_last_writer_wins(tmp_path: Path) -> None:
    run = local(tmp_path)
    late = run.write("images", "0-a", images("01", "02", width=2))
    early = run.write("images", "0-b", images("02", "03", "03", width=1))
    os.utime(early, (1000, 1000))
    os.utime(late, (2000, 2000))
    rows = run.read("images", ["image_id", "width"]).to_pylist()
    assert sorted((row["image_id"], row["width"]) for row in rows) == [("01", 2), ("02", 2), ("03", 1)]
    assert sorted(run.read("images", ["width"])["width"].to_pylist()) == [1, 2, 2]
    os.utime(early, (3000, 3000))
    rows = run.read("images", ["image_id", "width"]).to_pylist()
    assert sorted((row["image_id"], row["width"]) for row in rows) == [("01", 2), ("02", 1), ("03", 1)]


def test_an_id_may_be_several_columns(tmp_path: Path) -> None:
    run = local(tmp_path)
    rows = [{"sample_id": "s", "variant": variant} for variant in ("caslie", "text", "caslie")]
    table = pa.Table.from_pylist(rows, schema=SCHEMAS["instructions"])
    run.write("instructions", "0", table)
    assert run.read("instructions", ["variant"])["variant"].to_pylist() == ["text", "caslie"]


def test_rejects_have_no_id_and_are_all_kept(tmp_path: Path) -> None:
    assert IDS["rejects"] == ()
    run = local(tmp_path)
    run.write("rejects", "0", pa.Table.from_pylist([{"kind": "image"}] * 3, schema=SCHEMAS["rejects"]))
    assert run.read("rejects").num_rows == 3


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 2), st.integers()), max_size=12))
def test_the_last_row_of_each_key_is_kept(rows: list[tuple[str | None, int, int]]) -> None:
    schema = pa.schema([("x", pa.string()), ("y", pa.int64()), ("value", pa.decimal256(40))])
    table = pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)
    kept = [tuple(row.values()) for row in latest_rows(table, ["x", "y"]).to_pylist()]
    places = {row[:2]: place for place, row in enumerate(rows)}
    assert kept == [rows[place] for place in sorted(places.values())]


def test_columns_are_cast_and_put_in_order(tmp_path: Path) -> None:
    run = local(tmp_path)
    rows = pa.table(
        {"height": [2], "width": [1], "more": [0], "image": [b"x"], "image_id": pa.array(["a"], pa.large_string())}
    )
    assert run.read_file(run.write("images", "0", rows)).schema.equals(SCHEMAS["images"])


@pytest.mark.parametrize(
    "rows",
    [
        pa.table({"image_id": ["a"]}),
        images("a").set_column(2, "width", pa.array(["wide"])),
        images("a").set_column(2, "width", pa.array([2**40])),
        images("a").set_column(0, "image_id", pa.array([["a"]])),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_leave_nothing(tmp_path: Path, rows: pa.Table) -> None:
    with pytest.raises(RunError, match="rows do not fit table 'images'"):
        local(tmp_path).write("images", "0", rows)
    assert everything(tmp_path) == []


def test_a_writer_that_fails_midway_leaves_the_previous_content(tmp_path: Path) -> None:
    run = local(tmp_path)
    path = run.write("images", "0", images("01"))
    broken: Any = 5
    with pytest.raises(TypeError):
        run.put(path, broken)
    assert everything(tmp_path) == ["run/images/0.parquet"]
    assert run.read("images")["image_id"].to_pylist() == ["01"]


def test_a_path_that_is_blocked_by_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunError, match=r"cannot write .*/run/images/0\.parquet: .*fix that and run again"):
        local(tmp_path).write("images", "0", images("01"))
    assert everything(tmp_path) == ["run"]


_LIMITED = """
import resource, sys
import pyarrow as pa
from caslie_ray.errors import RunError
from caslie_ray.storage.run import open_run
from caslie_ray.storage.schemas import SCHEMAS
run = open_run(sys.argv[1])
rows = lambda size: pa.Table.from_pylist(
    [{"image_id": "01", "image": bytes(size), "width": 1, "height": 1}], schema=SCHEMAS["images"])
run.write("images", "0", rows(10))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    run.write("images", "0", rows(1_000_000))
except RunError as error:
    print(error)
run.write("images", "1", rows(20))
"""


def test_a_full_store_is_named_and_keeps_its_files(tmp_path: Path) -> None:
    """The system itself refuses to let the file grow, as on a full disk."""
    told = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith(f"cannot write {tmp_path}/images/0.parquet: ")
    assert "File too large" in told.stdout
    assert told.stdout.endswith("; nothing of it was kept, fix that and run again\n")
    assert everything(tmp_path) == ["images/0.parquet", "images/1.parquet"]
    assert [len(row["image"]) for row in open_run(str(tmp_path)).read("images", partition="0").to_pylist()] == [10]


_ENDLESS = """
import sys
import pyarrow as pa
from caslie_ray.storage.run import open_run
from caslie_ray.storage.schemas import SCHEMAS
run = open_run(sys.argv[1])
rows = pa.Table.from_pylist(
    [{"image_id": "01", "image": bytes(5_000_000), "width": 1, "height": 1}], schema=SCHEMAS["images"])
while True:
    run.write("images", "0", rows)
    print("written", flush=True)
"""


def test_a_writer_killed_at_any_time_leaves_intact_files(tmp_path: Path) -> None:
    for delay_s in (0.0, 0.005):
        with subprocess.Popen(
            [sys.executable, "-c", _ENDLESS, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(delay_s)
            writer.send_signal(signal.SIGKILL)
        run = open_run(str(tmp_path))
        assert [len(row["image"]) for row in run.read("images").to_pylist()] == [5_000_000]
        assert len(run.files("images")) == 1


def test_no_reader_sees_a_temporary_file(tmp_path: Path) -> None:
    """A file that is still being written has no .parquet name."""
    seen: list[list[str]] = []

    class Watched(pafs.FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
        def move(self, src: str, dest: str) -> None:
            seen.append(watched.files("images"))
            assert not src.endswith(".parquet")
            super().move(src, dest)

    watched = Run(pafs.PyFileSystem(Watched(MemoryFileSystem(skip_instance_cache=True))), f"/{tmp_path.name}", "memory")
    watched.write("images", "0", images("01"))
    assert seen == [[]]
    assert len(watched.files("images")) == 1


def test_other_files_in_a_table_are_not_read(tmp_path: Path) -> None:
    run = local(tmp_path)
    run.write("images", "0", images("01"))
    for name in (".0.parquet.0123.tmp", "_SUCCESS", "notes.txt", "0.parquet.crc"):
        (tmp_path / "run/images" / name).write_bytes(b"PAR1")
    (tmp_path / "run/images/folder.parquet").mkdir()
    assert run.read("images").num_rows == 1


def test_a_file_of_this_machine_is_never_waited_for(tmp_path: Path) -> None:
    run = open_run(str(tmp_path))
    run.write("images", "0", images("01"))
    begun = time.monotonic()
    with pytest.raises(StoreError, match=r"cannot read .*/images/xx.*: .*name too long.*; fix that"):
        run.read_file(run.path("images", f"{'x' * 300}.parquet"))
    assert time.monotonic() - begun < 1.0


@pytest.mark.parametrize("table", sorted(SCHEMAS))
def test_a_column_that_is_newer_than_a_file_reads_as_null(tmp_path: Path, table: str) -> None:
    run = local(tmp_path)
    schema, ids = SCHEMAS[table], IDS[table] or ("kind",)
    new = schema.names[-1]
    rows = pa.Table.from_pylist([dict.fromkeys(ids, "a"), dict.fromkeys(ids, "b")], schema=schema)
    for borrower in (run, run.below("other").with_shared_tables([table], run)):
        pq.write_table(rows.drop_columns([new]), run.write(table, "0", rows))
        run.write(table, "1", rows.slice(0, 1))
        assert borrower.read(table, partition="0").schema.names == schema.names
        assert borrower.read(table, [*ids, new], "0")[new].to_pylist() == [None, None]
        (old, _) = borrower.files(table)
        assert borrower.read_file(old).schema.equals(schema)
        assert borrower.read_file(old, [new], pc.field(ids[0]) == "a").to_pylist() == [{new: None}]
        assert pa.concat_tables([borrower.read_file(path) for path in borrower.files(table)]).num_rows == 3


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "flipped", "column"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    run = local(tmp_path)
    run.write("images", "0", images("01"))
    path = Path(run.write("images", "1", images(*(f"1{n}" for n in range(500)))))
    whole = path.read_bytes()
    if damage == "column":
        pq.write_table(images("1").drop_columns(["image_id"]), path)
    else:
        flipped = whole[:-40] + bytes(byte ^ 0xFF for byte in whole[-40:-8]) + whole[-8:]
        path.write_bytes({"empty": b"", "cut": whole[:-20], "text": b"hello " * 9, "flipped": flipped}[damage])
    mend = "(run ingest again: it reads and fetches|move it to another folder and run ingest again)"
    with pytest.raises(RunError, match=rf"cannot read .*/images/1\.parquet: .*; {mend}") as caught:
        run.read("images")
    assert "0.parquet" not in str(caught.value)
    if damage != "column":
        with pytest.raises(RunError, match=r"images/1\.parquet"):
            run.count_rows(str(path))
    assert run.read("images", partition="0").num_rows == 1


_SHORT_OF_MEMORY = """
import resource, sys
import pyarrow as pa
from caslie_ray.errors import StoreError
from caslie_ray.storage.run import open_run
from caslie_ray.storage.schemas import SCHEMAS
pa.set_memory_pool(pa.system_memory_pool())
pa.set_cpu_count(1)
pa.set_io_thread_count(1)
run = open_run(sys.argv[1])
for partition, size in (("1", 10), ("0", 100_000_000)):
    rows = pa.table({"image_id": ["01"], "image": [bytes(size)], "width": [1], "height": [1]})
    path = run.write("images", partition, rows)
    del rows
run.read("images", partition="1")
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000, used + 50_000_000))
run.read("images", partition="1")
try:
    run.read("images", partition="0")
except StoreError as error:
    print(error)
"""


def test_a_shortage_of_memory_does_not_count_as_damage(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SHORT_OF_MEMORY, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"cannot read {tmp_path}/images/0.parquet: ")
    assert "; give the job more memory; " in done.stdout


def test_what_pyarrow_does_not_support_does_not_count_as_damage(tmp_path: Path) -> None:
    run = local(tmp_path)
    path = run.write(
        "ingest/other", "0", pa.table({"key": [["a"]]}), schema=pa.schema([("key", pa.list_(pa.string()))])
    )
    with pytest.raises(StoreError, match=r"other/0\.parquet: .*; use the pyarrow version that wrote it, or move"):
        run.read_file(path, where=pc.field("key") > "a")


def test_a_column_of_another_type_is_named_with_a_remedy(tmp_path: Path) -> None:
    run = local(tmp_path)
    path = run.write("captions", "0", pa.Table.from_pylist([{"view_id": "v", "calls": 2}], schema=SCHEMAS["captions"]))
    rows = run.read_file(path)

    def other(**columns: pa.Array) -> None:
        changed = rows
        for name, values in columns.items():
            changed = changed.set_column(changed.schema.get_field_index(name), name, values)
        pq.write_table(changed, path)

    other(calls=pa.array([2], pa.int64()), caption=pa.array(["A mug"], pa.large_string()))
    assert run.read("captions", ["calls", "caption"]).to_pylist() == [{"calls": 2, "caption": "A mug"}]
    other(votes=pa.array(["yes, yes, no"]))
    assert run.read("captions", ["view_id", "calls"]).to_pylist() == [{"view_id": "v", "calls": 2}]
    wanted = (
        r"captions/0\.parquet: column votes is string and list<.* is wanted; .*; run caption again: it uses the answers"
    )
    with pytest.raises(RunError, match=wanted):
        run.read("captions")


@pytest.mark.parametrize(
    ("table", "mend"),
    [
        ("captions", "move it to another folder and run caption again"),  # its footer is intact: caption would skip it
        ("predictions", "run predict again"),
        ("instructions", "run fuse again"),
        ("samples", "move it to another folder and run ingest again"),  # its size is the same: ingest would skip it
    ],
)
def test_the_remedy_for_a_damaged_page_keeps_completed_work(tmp_path: Path, table: str, mend: str) -> None:
    run = local(tmp_path)
    row = dict.fromkeys(IDS[table], "an id of some length")
    path = Path(run.write(table, "0", pa.Table.from_pylist([row], schema=SCHEMAS[table])))
    data = bytearray(path.read_bytes())
    data[4:60] = b"\xff" * 56
    path.write_bytes(data)
    assert run.count_rows(str(path)) == 1
    with pytest.raises(RunError, match=mend):
        run.read(table)


@pytest.mark.parametrize(
    "name",
    [
        *("samples/0.parquet", "images/0.parquet", "views/0.parquet", "rejects/0.parquet"),
        *("ingest/tables.json", "ingest/fetched/kept.parquet", "ingest/pending/0.parquet"),
        *("ingest/parsed/0123/0.parquet", "ingest/parsed/0123/done.json"),
    ],
)
def test_a_damaged_file_of_ingest_is_replaced_by_ingest(tmp_path: Path, name: str) -> None:
    run = local(tmp_path)
    run.put(run.path(name), b"")
    mend = "run ingest again: it reads and fetches what is missing, and keeps a copy of the file in damaged/"
    with pytest.raises(DamagedFile, match=f"cannot read .*{name}: .*; {mend}"):
        run.read_json(name) if name.endswith("json") else run.read_file(run.path(name))


def test_a_copy_of_a_damaged_file_is_kept_under_its_own_content(tmp_path: Path) -> None:
    run = local(tmp_path)
    path = run.path("answers/phi-12/3.parquet")
    for data in (b"half", b"another half", b"half"):
        run.put(path, data)
        kept = keep_copy(run, path)
        assert kept is not None
        assert kept.startswith(run.path("damaged/answers/phi-12/3-"))
        assert run.read_bytes(kept) == data
    assert len(run.listed(run.path("damaged/answers/phi-12"))) == 2
    run.put(path, b"")
    assert keep_copy(run, path) is None
    assert keep_copy(run, run.path("captions/0.parquet")) is None


def test_a_damaged_summary_is_named(tmp_path: Path) -> None:
    run = local(tmp_path)
    run.write_json("summary/ingest.json", {})
    (tmp_path / "run/summary/ingest.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot read .*/summary/ingest\.json: .*; move it to another folder"):
        run.read_json("summary/ingest.json")


def test_summaries_are_human_readable(tmp_path: Path) -> None:
    local(tmp_path).write_json("summary/x.json", {"κ": 1.5})
    text = (tmp_path / "run/summary/x.json").read_text(encoding="utf-8")
    assert text == '{\n  "κ": 1.5\n}\n'
    assert json.loads(text) == {"κ": 1.5}


def test_every_table_names_its_ids() -> None:
    assert IDS.keys() == SCHEMAS.keys()
    for table, ids in IDS.items():
        assert set(ids) <= set(SCHEMAS[table].names)


@pytest.mark.parametrize(
    ("uri", "below"),
    [("/data/run/", "/data/run/plan-1"), ("s3://shop/run?region=eu", "s3://shop/run/plan-1?region=eu")],
)
def test_a_folder_below_a_run_keeps_the_store_settings_of_its_uri(tmp_path: Path, uri: str, below: str) -> None:
    run = replace(open_run(str(tmp_path)), uri=uri)
    assert run.below("plan-1").uri == below
    assert run.below("plan-1").root == f"{tmp_path}/plan-1"


def test_a_run_may_read_tables_of_another_and_never_write_them(tmp_path: Path) -> None:
    run = open_run(str(tmp_path))
    rows = [{"image_id": "a1", "image": b"x", "width": 1, "height": 1}]
    run.write("images", "a", pa.Table.from_pylist(rows, schema=SCHEMAS["images"]))
    below = run.below("other").with_shared_tables(("images",), run)
    assert below.read("images") == run.read("images")
    assert below.by_partition("images").keys() == {"a"}
    assert below.files("views") == []
    assert run.below("other").files("images") == []
    assert pickle.loads(pickle.dumps(below)).files("images") == run.files("images")


@pytest.mark.parametrize(
    ("uri", "label"),
    [
        ("s3://key:secret@shop/run?endpoint_override=localhost:9", "s3://shop/run"),
        ("s3://shop/run", "s3://shop/run"),
        ("runs/demo", "runs/demo"),
    ],
)
def test_a_label_contains_no_secrets(uri: str, label: str) -> None:
    assert Run(pafs.LocalFileSystem(), "x", uri).label == label


# Under a lease.


def under(run: Run, epoch: int, **takeovers: int) -> Run:
    return replace(run, fence=Fence(epoch, {int(name[1:]): stamp for name, stamp in takeovers.items()}))


def lease_file(run: Run, name: str, at: float) -> None:
    run.put(run.path("lease", name), b"{}")
    os.utime(run.path("lease", name), (at, at))


def written_at(run: Run, stem: str, at: float, *ids: str) -> str:
    path = run.write("images", stem, images(*ids))
    os.utime(path, (at, at))
    return path


def test_a_data_file_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        function = getattr(os, name)

        def call(*arguments: Any) -> Any:
            kind = " folder" if name == "fsync" and Path(f"/proc/self/fd/{arguments[0]}").resolve().is_dir() else ""
            steps.append(f"{name}{kind}")
            return function(*arguments)

        return call

    for name in ("fsync", "replace", "rename"):
        monkeypatch.setattr(os, name, noted(name))
    local(tmp_path).write("images", "0", images("01"))
    assert steps == ["fsync", "replace", "fsync folder"]


def test_names_under_a_lease(run: Run) -> None:
    held = under(run, 12)
    paths = [held.write("images", stem, images(stem)) for stem in ("3f", "3f-0e123456", "all")]
    assert [path.rpartition("/")[2] for path in paths] == [
        "3f-e00000012.parquet", "3f-0e123456-e00000012.parquet", "all-e00000012.parquet",
    ]  # fmt: skip
    for reader in (held, run):
        assert {reader.partition(path) for path in reader.files("images")} == {"3f", "all"}
        assert sorted(reader.stem(path) for path in reader.files("images", "3f")) == ["3f", "3f-0e123456"]
    # A second write by the same job, such as of a task that was run again, overwrites.
    held.write("images", "3f", images("3f", width=9))
    assert len(run.files("images", "3f")) == 2
    assert held.below("other").write("images", "3f", images("3f")).endswith("/other/images/3f-e00000012.parquet")


def test_files_count_up_to_the_moment_of_a_takeover(tmp_path: Path) -> None:
    run = local(tmp_path)
    below = run.below("other")
    now = time.time()
    written_at(run, "0-none", now + 999, "a")
    for epoch, at in ((1, 100), (1, 150), (2, 150), (2, 200), (2, 250), (3, 299), (3, 300), (4, 999)):
        written_at(under(run, epoch), f"0-{epoch}x{at}", now + at, f"{epoch}{at}")
    # A folder below the run is under the same lease.
    written_at(under(below, 2), "0", now + 201, "a")
    written_at(under(below, 4), "1", now + 201, "a")
    for epoch in (1, 2, 3, 4):
        lease_file(run, f"epoch-{epoch:08d}.json", now + 100 * (epoch - 1))
        claimed = os.stat(run.path("lease", f"epoch-{epoch:08d}.json")).st_mtime_ns
        lease_file(run, f"epoch-{epoch:08d}-{claimed}.at", now)
    lease_file(run, "epoch-00000001.done", now + 50)  # released before 2; 2 was taken over
    lease_file(run, "epoch-00000003.done", now + 301)  # written by a job that did not know
    taken = {f"e{epoch}": os.stat(run.path("lease", f"epoch-{epoch + 1:08d}.json")).st_mtime_ns for epoch in (2, 3)}
    wanted = {"0-none", "0-1x100", "0-1x150", "0-2x150", "0-3x299", "0-4x999"}
    for reader in (run, under(run, 4, **taken), under(run, 5, **taken), below.with_shared_tables(["images"], run)):
        assert {reader.stem(path) for path in reader.files("images")} == wanted
        assert {reader.stem(path) for path in reader.by_partition("images")["0"]} == wanted
    for reader in (below, under(below, 4, **taken)):
        assert [reader.stem(path) for path in reader.files("images")] == ["1"]


def test_the_later_epoch_of_writes_in_one_second_counts(tmp_path: Path) -> None:
    run = local(tmp_path)
    for epoch in (10, 9):
        written_at(under(run, epoch), f"0-{epoch}", 2000, "a")
    for epoch in (10, 9):
        lease_file(run, f"epoch-{epoch:08d}.json", 1000)
        lease_file(run, f"epoch-{epoch:08d}.done", 1000)
    assert [run.stem(path) for path in run.files("images")] == ["0-9", "0-10"]


def test_a_run_that_was_taken_over_is_neither_written_nor_deleted_from(run: Run) -> None:
    held: Run = pickle.loads(pickle.dumps(under(run, 1))) if "memory" not in run.uri else under(run, 1)
    path = held.write("images", "0", images("a"))
    run.put(run.path("lease", "epoch-00000002.json"), b"{}")
    for refused in (
        lambda: held.write("images", "1", images("b")),
        lambda: held.write_json("summary/x.json", {}),
        lambda: held.delete([path]),
        lambda: held.delete_folder(held.path("images")),
        lambda: held.below("other").put(held.path("other/x"), b""),
    ):
        with pytest.raises(RunLost, match=r"another job has taken over .*: this one writes and deletes no more"):
            refused()
    assert run.files("images") == [path]
    assert run.listed(run.path("summary")) == []
    under(run, 2).delete([path])
    assert run.listed(run.path("images")) == []
