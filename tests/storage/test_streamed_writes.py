"""Files of any size, complete or not there."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from caslie_ray.errors import StoreError
from caslie_ray.storage.run import open_run
from caslie_ray.storage.streamed_writes import replace_file
from tests.object_store import object_store_in_environment


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file of this process may be larger than 100 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def large(stream: BinaryIO) -> None:
    for _ in range(200):
        stream.write(b"x" * 1000)


def stopped(stream: BinaryIO) -> None:
    stream.write(b"half")
    raise KeyboardInterrupt


def test_a_file_is_written_in_a_new_folder(tmp_path: Path) -> None:
    replace_file(open_run(str(tmp_path)), f"{tmp_path}/a/b/x.csv", large, 200_000)
    assert (tmp_path / "a/b/x.csv").stat().st_size == 200_000
    assert os.listdir(tmp_path / "a/b") == ["x.csv"]


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_is_reported_with_the_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("old")
    with pytest.raises(StoreError, match=rf"cannot write {tmp_path}/x\.csv: .*File too large"):
        replace_file(open_run(str(tmp_path)), f"{tmp_path}/x.csv", large, 200_000)
    assert (tmp_path / "x.csv").read_text() == "old"
    assert os.listdir(tmp_path) == ["x.csv"]


def test_a_stopped_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        replace_file(open_run(str(tmp_path)), f"{tmp_path}/x.csv", stopped, 4)
    assert os.listdir(tmp_path) == []


def test_a_folder_of_that_name_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.csv/inside").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"cannot write .*/x\.csv"):
        replace_file(open_run(str(tmp_path)), f"{tmp_path}/x.csv", large, 200_000)
    assert os.listdir(tmp_path) == ["x.csv"]


@pytest.mark.parametrize("largest_put", [1_000_000, 0])
def test_an_object_store_shows_complete_files_only(monkeypatch: pytest.MonkeyPatch, largest_put: int) -> None:
    monkeypatch.setattr("caslie_ray.storage.streamed_writes._LARGEST_PUT", largest_put)
    with object_store_in_environment(["shop"]) as store:
        folder = open_run(store.uri("shop", "out"))
        with pytest.raises(KeyboardInterrupt):
            replace_file(folder, folder.path("x.csv"), stopped, 4)
        assert not any(store.keys("shop").values())
        store.fault("500", requests=4, only="PUT")
        replace_file(folder, folder.path("x.csv"), large, 200_000)
        assert store.heal()["met"]["500"] == 4
        assert {key: size for key, size in store.keys("shop").items() if size} == {"out/x.csv": 200_000}
