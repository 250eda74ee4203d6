"""A run on an object store that hiccups, hangs, is slow, refuses or is down: a real server, and real faults."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from caslie_ray.captioning._table_files import read_undamaged
from caslie_ray.dataset._columns import Columns
from caslie_ray.dataset._decoding import ImageError
from caslie_ray.dataset._files import Files
from caslie_ray.dataset._intermediate import read_range, write_sorted
from caslie_ray.dataset._reading import read_source
from caslie_ray.dataset._roots import Root
from caslie_ray.dataset._sources import find_sources
from caslie_ray.errors import NoAnswer, RunError, StoreError
from caslie_ray.profiles import SourceKeys
from caslie_ray.storage.filesystems import is_object_store, open_path
from caslie_ray.storage.range_reader import open_ranges
from caslie_ray.storage.retries import RetryPolicy
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS
from tests.object_store import ObjectStore, free_port, object_store, object_store_in_environment

ROOT = Path(__file__).parents[2]
SHORT = RetryPolicy(total_s=1.0, first_s=0.1)


@pytest.fixture(scope="module")
def running() -> Iterator[ObjectStore]:
    with object_store_in_environment(["shop"]) as store:
        yield store


@pytest.fixture
def store(running: ObjectStore) -> Iterator[ObjectStore]:
    running.heal()
    yield running
    running.heal()


@pytest.fixture
def run(store: ObjectStore, tmp_path: Path) -> Run:
    return open_run(store.uri("shop", tmp_path.name), RetryPolicy(total_s=30.0, first_s=0.1, longest_s=1.0))


def images(*ids: str, size: int = 10, width: int = 1) -> pa.Table:
    rows = [{"image_id": one, "image": bytes(size), "width": width, "height": 2} for one in ids]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["images"])


def below(store: ObjectStore, run: Run) -> dict[str, int]:
    """The objects of a run by name, without the empty ones that mark folders."""
    head = run.root.removeprefix("shop/") + "/"
    return {
        name.removeprefix(head): size
        for name, size in store.keys("shop").items()
        if name.startswith(head) and not name.endswith("/")
    }


def everything(run: Run) -> list[Callable[[], Any]]:
    """All that a job does with a run, each as a call; all may be done at once."""
    run.write("images", "0", images("01", "02"))
    old = run.write("images", "f", images("f1"))
    run.write_json("summary/x.json", {"a": 1})
    write_sorted(run, "sorted", "0", "images", images("01", "11"))
    kept, sorted_file = run.path("images", "0.parquet"), run.path("ingest/sorted/0.parquet")
    return [
        lambda: run.write("images", "1", images("11")) == run.path("images", "1.parquet"),
        lambda: run.read_file(kept).num_rows == 2,
        lambda: kept in run.files("images"),
        lambda: run.count_rows(kept) == 2,
        lambda: run.note_of(kept) == {},
        lambda: run.delete([old, old]),
        lambda: run.read_json("summary/x.json") == {"a": 1} and run.read_json("summary/y.json") is None,
        lambda: run.put(run.path("summary/z.json"), b"{}"),
        lambda: read_range(run, [sorted_file], "images", "0")["image_id"].to_pylist() == ["01"],
        lambda: run.info([kept])[0].size > 0,
        lambda: read_undamaged(run, kept).num_rows == 2,  # type: ignore[union-attr]  # not None: it is undamaged
    ]


def at_once(calls: list[Callable[[], Any]]) -> list[bool]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(lambda call: call() in (None, True), calls))


def test_a_table_survives_a_round_trip_through_uris_of_both_kinds(store: ObjectStore, run: Run) -> None:
    run.write("images", "0a", images("0a1", "0a2"))
    assert is_object_store(pafs.SubTreeFileSystem("shop", run.fs))
    plain = open_run(f"s3://shop/{run.root.removeprefix('shop/')}/")
    assert plain.read("images").to_pylist() == images("0a1", "0a2").to_pylist()
    assert list(below(store, run)) == ["images/0a.parquet"]
    run.delete(run.files("images"))
    assert plain.files("images") == []
    assert below(store, run) == {}


_OTHER = """
import pickle, sys
run = pickle.loads(sys.stdin.buffer.read())
run.write("images", "1", run.read("images"))
print(run.fs.__reduce__()[1][0]["request_timeout"], run.retry_policy.total_s)
"""


def test_a_run_is_sent_to_other_processes_with_its_settings_and_no_keys(store: ObjectStore, run: Run) -> None:
    run.write("images", "0", images("01"))
    data = pickle.dumps(run)
    assert b"testing" not in data
    told = subprocess.run(
        [sys.executable, "-c", _OTHER], input=data, cwd=ROOT, capture_output=True, check=True, timeout=60
    )
    assert told.stdout.split() == [b"15.0", b"30.0"]
    assert len(run.files("images")) == 2


@pytest.mark.parametrize(
    ("uri", "settings"),
    [
        ("s3://key:se%2Fcret@b/x", {"access_key": "key", "secret_key": "se/cret"}),
        ("s3://b/x?region=eu-west-9", {"region": "eu-west-9", "access_key": None}),
        ("s3://b/x?scheme=http&endpoint_override=h:9", {"scheme": "http", "endpoint_override": "h:9"}),
        ("s3://b/x?allow_delayed_open=false", {"allow_delayed_open": False}),
        ("s3://b/x", {"allow_delayed_open": True, "connect_timeout": 10.0, "request_timeout": 15.0}),
        ("s3://b/x?allow_bucket_creation=true", {"allow_bucket_creation": True}),
    ],
)
def test_the_store_settings_of_a_uri_are_kept(uri: str, settings: dict[str, object]) -> None:
    filesystem, inner = open_path(uri)
    found = pickle.loads(pickle.dumps(filesystem)).__reduce__()[1][0]
    assert {name: found[name] for name in settings} == settings
    assert inner == "b/x"


@pytest.mark.parametrize("kind", ["500,503,reset", "half,late"])
def test_a_burst_of_failures_is_retried(store: ObjectStore, run: Run, kind: str) -> None:
    calls = everything(run)
    store.fault(kind, seconds=1.5)
    begun = time.monotonic()
    assert at_once(calls) == [True] * len(calls)
    assert store.heal()["met"].total() > len(calls)
    assert time.monotonic() - begun < 15
    assert set(below(store, run)) == {
        *("images/0.parquet", "images/1.parquet", "ingest/sorted/0.parquet", "summary/x.json", "summary/z.json"),
    }
    assert run.read("images", ["image_id"])["image_id"].to_pylist() == ["01", "02", "11"]


def test_a_store_that_fails_every_third_time_is_read_and_written(store: ObjectStore, run: Run) -> None:
    store.fault("500", share=0.25)
    for _ in range(3):  # which requests fail is drawn
        calls = everything(run)
        assert at_once(calls) == [True] * len(calls)
    assert store.heal()["met"]["500"] > 5


def test_a_hang_is_waited_for(store: ObjectStore, run: Run) -> None:
    calls = everything(run)
    settings = run.fs.__reduce__()[1][0]
    hasty = pafs.S3FileSystem(**{**settings, "request_timeout": 1.0})
    # The first hears the server hang up after a while, the second gives up on it and comes again.
    store.fault("hang", seconds=2.5)
    path = run.path("images", "0.parquet")
    again = replace(run, fs=hasty)
    assert at_once([*calls, lambda: again.read_file(path).num_rows == 2])[-1]
    assert store.heal()["met"]["hang"] > len(calls)


def test_a_slow_store_is_no_failure(store: ObjectStore, run: Run) -> None:
    """Arrow by itself gives up on an answer after three seconds."""
    path = run.write("images", "0", images("01"))
    store.heal()
    store.fault("slow", delay=4.0, requests=4)
    calls = [lambda: run.put(run.path("x"), b"x"), lambda: run.files("images") == [path]]
    assert at_once(calls) == [True, True]
    assert sum(store.heal()["asked"].values()) == 2


@pytest.mark.parametrize("kind", ["403", "key"])
def test_a_refusal_by_the_store_is_an_immediate_error(store: ObjectStore, run: Run, kind: str) -> None:
    calls = everything(run)
    before = below(store, run)
    store.fault(kind)
    for call in calls:
        begun = time.monotonic()
        with pytest.raises(StoreError, match=r"^cannot \w+.* .*shop/.*; check the credentials and their") as caught:
            call()
        assert not isinstance(caught.value, NoAnswer)
        assert "delete it" not in str(caught.value)
        assert time.monotonic() - begun < 1.0
    assert store.heal()["met"][kind] == len(calls)
    assert below(store, run) == before


def test_a_missing_bucket_is_reported(store: ObjectStore) -> None:
    run = open_run(store.uri("elsewhere", "run"))
    begun = time.monotonic()
    with pytest.raises(StoreError, match=r"cannot write elsewhere/run/images/0\.parquet: .*; create the bucket"):
        run.write("images", "0", images("01"))
    assert time.monotonic() - begun < 1.0


def test_a_store_that_is_down_is_given_up_after_a_while() -> None:
    run = open_run(ObjectStore(free_port()).uri("shop", "run"), SHORT)
    begun = time.monotonic()
    with pytest.raises(NoAnswer) as caught:
        run.write("images", "0", images("01"))
    assert 1.0 < time.monotonic() - begun < 8.0
    said = str(caught.value)
    assert said.startswith("cannot write shop/run/images/0.parquet: the store did not answer in ")
    assert "connect to server" in said
    assert said.endswith("; run the same command again once it does, finished work is kept")
    with pytest.raises(NoAnswer, match=r"cannot list shop/run/views: the store did not answer"):
        run.files("views")


def test_a_store_that_comes_back_is_found(running: ObjectStore) -> None:
    port = free_port()
    run = open_run(ObjectStore(port).uri("late", "run"), RetryPolicy(total_s=60.0, first_s=0.1, longest_s=0.5))
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(run.write, "images", "0", images("01"))
        time.sleep(0.5)
        with object_store(port, ["late"]):
            writing.result()
            assert run.read("images").num_rows == 1


def test_a_failed_write_leaves_the_previous_content(store: ObjectStore, run: Run) -> None:
    path = run.write("images", "0", images("01"))
    before = below(store, run)
    hasty = replace(run, retry_policy=SHORT)

    def refused(stem: str) -> bool:
        with pytest.raises(NoAnswer):
            hasty.write("images", stem, images("01", "02", size=100_000))
        return True

    store.fault("reset", only="PUT")
    assert at_once([lambda: refused("0"), lambda: refused("1")]) == [True, True]
    store.heal()
    assert below(store, run) == before
    broken: Any = 5
    with pytest.raises(TypeError):
        run.put(path, broken)
    assert run.read_file(path).equals(images("01"))


_INTERRUPTED = """
import signal, sys
from caslie_ray.storage.run import open_run
run = open_run(sys.argv[1])
class Stopped(BaseException): pass
def stop(*_): raise Stopped
signal.signal(signal.SIGALRM, stop)
pause = 0.0001
for _ in range(80):
    pause = pause + 0.00005 if pause < 0.006 else 0.0001
    signal.setitimer(signal.ITIMER_REAL, pause)
    try:
        while True:
            run.put(run.path("x"), b"whole")
    except Stopped:
        pass
    assert run.read_bytes(run.path("x")) == b"whole"
print("whole")
"""


def test_a_signal_at_any_time_leaves_an_intact_file(store: ObjectStore, run: Run) -> None:
    run.put(run.path("x"), b"whole")
    told = subprocess.run([sys.executable, "-c", _INTERRUPTED, run.uri], cwd=ROOT, capture_output=True, text=True)
    assert told.stdout == "whole\n", told.stderr[-500:]


_ENDLESS = """
import sys
from caslie_ray.storage.run import open_run
run = open_run(sys.argv[1])
while True:
    run.put(run.path("x"), bytes(12_000_000))
    print("written", flush=True)
"""


def test_a_writer_killed_during_a_write_leaves_an_intact_file(store: ObjectStore, run: Run) -> None:
    """More than the parts of an upload hold, so that some of it is there before the rest."""
    for delay_s in (0.0, 0.03):
        with subprocess.Popen(
            [sys.executable, "-c", _ENDLESS, run.uri], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(delay_s)
            writer.send_signal(signal.SIGKILL)
        assert below(store, run) == {"x": 12_000_000}


def test_a_failing_store_never_makes_a_file_count_as_broken(store: ObjectStore, run: Run) -> None:
    path = run.write("images", "0", images("01"))
    hasty = replace(run, retry_policy=SHORT)
    for kind in ("500", "half"):
        store.fault(kind, only="GET /shop")
        with pytest.raises(NoAnswer, match=r"cannot read shop/.*/images/0\.parquet: the store did not answer"):
            read_undamaged(hasty, path)
    store.heal()
    run.put(path, b"PAR1 and no more")
    begun = time.monotonic()
    assert read_undamaged(run, path) is None
    with pytest.raises(RunError, match=r"0\.parquet: .*; run ingest again: it reads and fetches") as caught:
        run.read_file(path)
    assert not isinstance(caught.value, StoreError)
    assert time.monotonic() - begun < 1.0
    with pytest.raises(RunError, match="fix that"):
        run.read_bytes(run.path("gone"))


def test_the_store_gets_no_unnecessary_requests(store: ObjectStore, run: Run) -> None:
    for number in range(20):
        run.write("images", f"{number:02}", images(f"{number:02}"))
    assert store.heal()["asked"] == {"PUT": 20}
    assert len(run.files("images")) == 20
    assert store.heal()["asked"] == {"GET": 1}


@pytest.mark.parametrize("form", ["jsonl.gz", "parquet"])
def test_a_source_is_read_to_its_end_over_failures(store: ObjectStore, run: Run, tmp_path: Path, form: str) -> None:
    rows = [
        {"instruction": f"number {n}", "input": "", "output": random.Random(n).randbytes(400).hex()} for n in range(999)
    ]
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x", row_group_size=100)
        data = (tmp_path / "x").read_bytes()
    else:
        data = gzip.compress("\n".join(map(json.dumps, rows)).encode())
    run.put(run.path(f"source.{form}"), data)
    uri = store.uri("shop", f"{run.root.removeprefix('shop/')}/source.{form}")
    store.fault("500", requests=2)
    (file,), _ = find_sources([uri])
    store.fault("500", requests=2)
    records = []
    for number, record in enumerate(read_source(file, Columns.of(SourceKeys()))):
        records.append(record)
        if number % 100 == 0:
            store.fault("500", requests=1)
    assert store.heal()["met"]["500"] >= 4
    assert [record.reason for record in records] == [None] * 999
    store.fault("403", only="GET")
    with pytest.raises(StoreError, match="check the credentials"):
        list(read_source(file, Columns.of(SourceKeys())))


def test_a_parquet_source_is_fetched_about_once(store: ObjectStore, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = {f"c{n}": [random.Random(n * 999 + row).randbytes(6000) for row in range(999)] for n in range(3)}
    sink = io.BytesIO()
    pq.write_table(pa.table({"task": ["x"] * 999} | columns), sink, compression="none")
    data = sink.getvalue()
    run.put(run.path("source.parquet"), data)
    (file,), _ = find_sources([store.uri("shop", f"{run.root.removeprefix('shop/')}/source.parquet")])
    fetched: list[int] = []
    ranges = import_module("caslie_ray.storage.range_reader")._RangeReader
    readinto = ranges.readinto

    def counted(self: object, buffer: bytearray) -> int:
        fetched.append(readinto(self, buffer))
        return fetched[-1]

    monkeypatch.setattr(ranges, "readinto", counted)
    assert len(list(read_source(file, Columns.of(SourceKeys())))) == 999
    assert sum(fetched) < 2.2 * len(data)
    assert len(fetched) < 60


def test_ranges_read_like_a_file(store: ObjectStore, run: Run) -> None:
    data = random.Random(0).randbytes(300_000)
    run.put(run.path("x"), data)
    with open_ranges(run.fs, run.path("x")) as file:
        assert file.read(10) == data[:10]
        assert file.seek(-5, os.SEEK_END) == len(data) - 5
        assert file.read() == data[-5:]
        assert file.seek(299_000) == 299_000
        assert file.seek(-9_000, os.SEEK_CUR) == 290_000
        assert file.read(20_000) == data[290_000:]
        assert file.read(1) == b""
    with pytest.raises(FileNotFoundError):
        open_ranges(run.fs, run.path("gone"))


def test_images_of_a_store_with_transient_failures(store: ObjectStore, run: Run) -> None:
    run.put(run.path("a.png"), b"picture")
    root = Root.of(run.uri)
    locator = root.locator(f"{root.path}/a.png")
    files = Files([root])
    store.fault("500", seconds=1.5)
    with ThreadPoolExecutor(2) as pool:
        data, keys = pool.submit(files.read, locator, 100), pool.submit(files.keys, [locator])
        assert data.result() == b"picture"
        assert isinstance(keys.result()[locator], str)
    store.fault("403")
    with pytest.raises(ImageError, match=r"unreadable file: .*ACCESS_DENIED.*; check the path and the rights"):
        files.read(locator, 100)


def test_google_cloud_storage_is_supported(running: ObjectStore) -> None:
    options = f"scheme=http&endpoint_override=127.0.0.1:{running.port}&retry_limit_seconds=1"
    run = open_run(f"gs://anonymous@shop/run?{options}", RetryPolicy(total_s=0.1))
    assert is_object_store(run.fs)
    running.fault("503")
    with pytest.raises(NoAnswer, match="cannot write shop/run/x: the store did not answer"):
        run.put(run.path("x"), b"x")
    running.fault("403")
    with pytest.raises(StoreError, match=r"cannot write shop/run/x: .*check the credentials"):
        run.put(run.path("x"), b"x")
    running.heal()
