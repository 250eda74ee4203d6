"""Exclusive, atomic creation of files on any file system."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from caslie_ray.storage._local_files import create_file, replace_file
from caslie_ray.storage.filesystems import local_path


def refused(source: str, target: str) -> None:
    raise PermissionError(1, "Operation not permitted")


def answer_lost(source: str, target: str) -> None:
    os.link(source, target)
    raise TimeoutError("Connection timed out")


@pytest.mark.parametrize("link", [os.link, refused, answer_lost])
def test_a_file_is_created_once(tmp_path: Path, link: Callable[[str, str], None]) -> None:
    path = tmp_path / "a" / "claim.json"
    assert create_file(str(path), b"first", link)
    for _ in range(2):
        assert not create_file(str(path), b"second", os.link if link is answer_lost else link)
    assert path.read_bytes() == b"first"
    assert os.listdir(path.parent) == ["claim.json"]


@pytest.mark.parametrize("link", [os.link, refused])
def test_exactly_one_of_many_concurrent_creators_succeeds(tmp_path: Path, link: Callable[[str, str], None]) -> None:
    with ThreadPoolExecutor(8) as threads:
        for number in range(25):
            path = str(tmp_path / str(number))
            made = list(threads.map(lambda n, path=path: create_file(path, b"%d" % n * 1000, link), range(8)))
            assert made.count(True) == 1
            assert Path(path).read_bytes() == b"%d" % made.index(True) * 1000
    assert len(os.listdir(tmp_path)) == 25


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(str(tmp_path / "x"), b"new")
    assert os.listdir(tmp_path) == ["x"]


def test_the_path_on_this_machine(tmp_path: Path) -> None:
    sub = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    assert local_path(pafs.LocalFileSystem(), "/a/b") == "/a/b"
    assert local_path(pafs.SubTreeFileSystem("in", sub), "b/c") == f"{tmp_path}/in/b/c"
    assert (
        local_path(pafs.SubTreeFileSystem("shop", pafs.S3FileSystem(anonymous=True, region="us-east-1")), "b") is None
    )
