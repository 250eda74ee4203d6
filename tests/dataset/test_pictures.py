"""Folders that have pictures and no data file."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from caslie_ray.dataset._limits import DEFAULT, Ratio
from caslie_ray.dataset._pictures import is_picture, read_pictures
from caslie_ray.dataset._reading import Record, read_source
from caslie_ray.dataset._references import read_reference
from caslie_ray.dataset._roots import roots_of
from caslie_ray.dataset._sources import SourceFile, find_sources
from caslie_ray.errors import SourceError
from tests.dataset.sources import COLUMNS

NAMES = ["a.jpg", "sub/b.PNG", "sub/deep er/c.webp", "t.tiff"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*NAMES, "notes.txt", ".hidden.jpg", ".cache/d.jpg"):
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "shop"


def source(folder: Path | str) -> SourceFile:
    (file,), skipped = find_sources([str(folder)])
    assert skipped.others == 1
    return file


def images(records: list[Record]) -> list[object]:
    assert all(record.row is not None for record in records)
    return [record.row["images"] for record in records if record.row is not None]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.jpg", True), ("b/c.JPEG", True), ("d.bmp", True), ("e.tif", True), ("jpg", False), ("f.jpg.txt", False)],
)
def test_pictures_are_known_by_their_names(name: str, expected: bool) -> None:
    assert is_picture(name) is expected


@pytest.mark.parametrize("as_uri", [False, True])
def test_each_picture_is_a_row(folder: Path, as_uri: bool) -> None:
    given = f"file://{folder}" if as_uri else str(folder)
    records = list(read_source(source(given), COLUMNS))
    assert images(records) == NAMES
    assert [record.row["id"] for record in records if record.row] == NAMES
    assert [record.location for record in records] == [f"{given}:{number}" for number in range(1, 5)]


@pytest.mark.parametrize("as_uri", [False, True])
@pytest.mark.parametrize("slash", ["", "/"])
def test_its_path_is_a_reference_below_the_folder(folder: Path, as_uri: bool, slash: str) -> None:
    file = source(f"{'file://' if as_uri else ''}{folder}{slash}")
    roots = roots_of(file.path, file.source, False, ())
    found = [read_reference(str(one), roots, "").locator for one in images(list(read_source(file, COLUMNS)))]
    assert found == [f"file:{folder}/{name}" for name in NAMES]


def test_the_version_changes_with_the_listing(folder: Path) -> None:
    versions = [source(folder).version]

    def changed() -> bool:
        versions.append(source(folder).version)
        return versions[-1] not in versions[:-1]

    (folder / "sub" / "new.gif").write_bytes(b"")
    assert changed()
    (folder / "sub" / "new.gif").write_bytes(b"more")
    assert changed()
    (folder / "sub" / "new.gif").rename(folder / "new.gif")
    assert changed()
    os.utime(folder / "a.jpg", ns=(1, 1))
    assert changed()
    (folder / "notes.txt").write_bytes(b"other notes")
    assert source(folder).version == versions[-1]


def test_a_data_file_beside_them_is_the_source(folder: Path) -> None:
    (folder / "sub" / "rows.csv").write_text("task,images\nSA,b.PNG\n")
    (file,), skipped = find_sources([str(folder)])
    assert (file.name, file.pictures) == (f"{folder}/sub/rows.csv", False)
    assert skipped.others == len(NAMES) + 1


def test_a_folder_without_data_and_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("task,images\nSA,b.png\n")
    with pytest.raises(SourceError, match=r"\.csv.*no picture"):
        find_sources([str(tmp_path)])


def test_a_name_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9.jpg")).touch()
    with pytest.raises(SourceError, match="rename it"):
        find_sources([str(folder)])


def test_many_empty_pictures_are_not_taken_for_a_packed_file() -> None:
    files = [(f"{number}.jpg", pafs.FileInfo(f"{number}.jpg", pafs.FileType.File, size=0)) for number in range(17_000)]
    ratio = Ratio(DEFAULT)
    for found in read_pictures(files, ratio):
        ratio.check_rows(found.number)
    assert found.number == 17_000
