"""A damaged file of ingest is replaced by the next ingest, which reads and fetches what is missing and no more."""

from __future__ import annotations

import logging
import pickle
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]  # it has none

from caslie_ray.dataset import ingest
from caslie_ray.dataset._cache import Cache
from caslie_ray.errors import DamagedFile
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS
from tests.dataset.test_ingest import bring, rows
from tests.dataset.world import Site, category, png, stopped_before_tables, write_json

pytestmark = pytest.mark.usefixtures("ray_cluster")

COUNT = 6
TABLES = ("samples", "images", "views", "rejects")


def state(run: Run) -> dict[str, list[str]]:
    return {table: sorted(map(str, rows(run, table))) for table in TABLES}


def first_of(run: Run, pattern: str) -> Path:
    return sorted(Path(run.root).glob(pattern))[0]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    """Other bytes behind the file's first ones; its footer, and its size, stay."""
    return data[:4] + bytes(byte ^ 0xFF for byte in data[4:40]) + data[40:]


# A file, and whether rows are read again and images fetched again; None where some are.
DAMAGE: dict[str, tuple[str, int, int | None]] = {
    "images": ("images/*.parquet", 0, None),
    "samples": ("samples/*.parquet", 0, 0),
    "views": ("views/*.parquet", 0, 0),
    "rejects": ("rejects/*.parquet", 0, 0),
    "ledger": ("ingest/fetched/*.parquet", 0, COUNT + 1),
    "parsed rows": ("ingest/parsed/*/*.parquet", COUNT + 2, 0),
    "done": ("ingest/parsed/*/done.json", COUNT + 2, 0),
    "stamp": ("ingest/tables.json", 0, 0),
}


@pytest.fixture
def world(tmp_path: Path, site: Site) -> tuple[Run, str]:
    for n in range(COUNT):
        site.pages[f"/{n}.png"] = png(n)
    data = [category(f"t{n}", site.url(f"/{n}.png")) for n in range(COUNT)]
    data += [category("gone", site.url("/gone.png")), category("", site.url("/0.png"))]
    return open_run(str(tmp_path / "run")), write_json(tmp_path / "rows.json", data)


CASES = [
    (name, how) for name in DAMAGE for how in ("emptied", "cut") if how == "emptied" or name in ("images", "stamp")
]


@pytest.mark.parametrize(("name", "how"), CASES, ids=[f"{name}, {how}" for name, how in CASES])
def test_a_damaged_file_is_replaced(
    world: tuple[Run, str],
    profile: Profile,
    site: Site,
    caplog: pytest.LogCaptureFixture,
    name: str,
    how: str,
) -> None:
    pattern, parsed, fetched = DAMAGE[name]
    run, source = world
    bring(run, profile, source)
    before, asked = state(run), len(site.seen)
    path = first_of(run, pattern)
    damaged = b"" if how == "emptied" else cut(path.read_bytes())
    path.write_bytes(damaged)

    with caplog.at_level(logging.WARNING):
        summary = bring(run, profile, source)

    assert state(run) == before
    assert summary.parsed_rows == parsed
    if fetched is None:
        assert 0 < summary.fetched < COUNT
    else:
        assert summary.fetched == fetched
    assert len(site.seen) - asked == summary.fetched
    copies = [one.read_bytes() for one in Path(run.path("damaged")).rglob("*") if one.is_file()]
    assert copies == ([] if how == "emptied" else [damaged])
    assert str(path) in caplog.text
    again = bring(run, profile, source)
    assert (again.parsed_rows, again.fetched, again.written_files) == (0, 0, 0)


def test_many_damaged_files_are_replaced_at_once(world: tuple[Run, str], profile: Profile) -> None:
    run, source = world
    bring(run, profile, source)
    before = state(run)
    for path in [*Path(run.root).rglob("*.parquet"), *Path(run.path("ingest")).rglob("*.json")]:
        path.write_bytes(b"")
    summary = bring(run, profile, source)
    assert state(run) == before
    assert (summary.parsed_rows, summary.fetched) == (COUNT + 2, COUNT + 1)


@pytest.mark.parametrize("how", ["emptied", "cut"])
def test_damaged_images_of_a_run_that_was_stopped_are_fetched_again(
    world: tuple[Run, str], profile: Profile, site: Site, how: str
) -> None:
    run, source = world

    with stopped_before_tables():
        bring(run, profile, source)
    path = first_of(run, "ingest/pending/*.parquet")
    path.write_bytes(b"" if how == "emptied" else cut(path.read_bytes()))
    summary = bring(run, profile, source)
    assert (summary.images, summary.samples, summary.parsed_rows) == (COUNT, COUNT + 1, 0)
    assert 0 < summary.fetched <= COUNT


@pytest.mark.parametrize("table", ["images", "views"])
def test_a_damaged_file_with_an_intact_footer_is_replaced(world: tuple[Run, str], profile: Profile, table: str) -> None:
    run, source = world
    bring(run, profile, source)
    before = state(run)
    path = first_of(run, f"{table}/*.parquet")
    path.write_bytes(flipped(path.read_bytes()))
    first_of(run, "samples/*.parquet").unlink()  # so that the tables are looked at
    assert (bring(run, profile, source).fetched > 0) == (table == "images")
    assert state(run) == before


class Slow(pafs.FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
    """Takes some time to open a file; counts the files that are opened at the same time."""

    def __init__(self) -> None:
        super().__init__(MemoryFileSystem(skip_instance_cache=True))
        self.opened: list[str] = []
        self.active = self.peak = 0
        self._lock = threading.Lock()

    def open_input_file(self, path: str) -> Any:
        with self._lock:
            self.opened.append(path)
            self.active += 1
            self.peak = max(self.peak, self.active)
        time.sleep(0.1)
        with self._lock:
            self.active -= 1
        return super().open_input_file(path)


def test_footers_are_read_in_parallel_and_empty_files_not_at_all(
    tmp_path: Path, profile: Profile, caplog: pytest.LogCaptureFixture
) -> None:
    slow = Slow()
    run = Run(pafs.PyFileSystem(slow), f"/{tmp_path.name}", "memory")
    paths = [run.write("views", f"{number:02}", SCHEMAS["views"].empty_table()) for number in range(24)]
    run.put(paths[3], b"")
    run.put(paths[20], b"PAR1")
    run.put(run.path("ingest/tables.json"), b"")
    gone = run.path("images/0.parquet")
    with caplog.at_level(logging.WARNING):
        discarded = Cache(run, profile, {}).discard_damaged(gone)
    assert discarded == {gone, paths[3], paths[20], run.path("ingest/tables.json")}
    assert slow.peak > 4
    assert not {paths[3], run.path("ingest/tables.json")} & set(slow.opened)
    assert f"{gone} is missing" in caplog.text
    assert f"{paths[3]} is empty" in caplog.text


def test_what_cannot_be_written_completely_ends_the_job(
    world: tuple[Run, str], profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, source = world
    bring(run, profile, source)
    path = first_of(run, "ingest/tables.json")

    def broken(self: Run, name: str, value: object) -> None:
        self.put(self.path(name), b"{")

    monkeypatch.setattr(Run, "write_json", broken)
    path.write_bytes(b"{")
    bring(run, profile, source)
    monkeypatch.setattr(Run, "delete", lambda *_: None)
    with pytest.raises(DamagedFile, match=r"tables\.json"):
        ingest(run, [source], profile, quiet=True)


def test_the_error_of_a_damaged_file_pickles() -> None:
    error = pickle.loads(pickle.dumps(DamagedFile("cannot read a: b", "a")))
    assert (str(error), error.path) == ("cannot read a: b", "a")
