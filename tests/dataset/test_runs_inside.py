"""Sources and runs in one another: the files of a run are no source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from caslie_ray.dataset._sources import find_sources
from caslie_ray.errors import SourceError
from caslie_ray.storage.run import open_run
from tests.dataset.sources import sentiment

ROWS = json.dumps([sentiment(1)])
KEY = "0123456789abcdef" * 2


def shop(folder: Path, run: str = "run") -> Path:
    """A folder with one data file, and a run in it as a stopped and a complete job leave it."""
    for name in (
        f"{run}/samples/0.parquet",
        f"{run}/ingest/parsed/{KEY}/000000.parquet",
        f"{run}/ingest/tables.json",
        f"{run}/summary/ingest.json",
        f"{run}/lease/epoch-00000001.json",
        f"{run}/source/dataset.json",
        "rows.json",
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ROWS)
    return folder


def test_a_run_inside_of_its_source_is_left_out(tmp_path: Path) -> None:
    shop(tmp_path)
    for source in (str(tmp_path), f"file://{tmp_path}"):
        files, skipped = find_sources([source], open_run(str(tmp_path / "run")))
        assert [Path(file.name).name for file in files] == ["rows.json"]
        assert skipped.run_files == 6


def test_a_run_that_has_only_started_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "run" / "lease").mkdir(parents=True)
    (tmp_path / "run" / "lease" / "epoch-00000001.json").write_text("{}")
    (tmp_path / "rows.json").write_text(ROWS)
    files, skipped = find_sources([str(tmp_path)], open_run(str(tmp_path / "run")))
    assert ([Path(file.name).name for file in files], skipped.run_files) == (["rows.json"], 1)


def test_links_do_not_hide_a_run(tmp_path: Path) -> None:
    real = shop(tmp_path / "real")
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "run-link").symlink_to(real / "run")
    for source, run in (("link", "real/run"), ("real", "run-link"), ("link", "run-link")):
        files, skipped = find_sources([str(tmp_path / source)], open_run(str(tmp_path / run)))
        assert ([Path(file.name).name for file in files], skipped.run_files) == (["rows.json"], 6)


def test_other_runs_inside_of_a_source_are_left_out(tmp_path: Path) -> None:
    shop(tmp_path)
    shop(tmp_path, "deep/down")
    files, skipped = find_sources([str(tmp_path)], open_run(str(tmp_path / "new")))
    assert [Path(file.name).name for file in files] == ["rows.json"]
    assert skipped.run_files == 12


@pytest.mark.parametrize("source", ["run", "run/samples", "run/ingest", "run/samples/0.parquet", "run/."])
@pytest.mark.parametrize("own", [True, False])
def test_a_source_that_is_a_run_is_refused(tmp_path: Path, source: str, own: bool) -> None:
    shop(tmp_path)
    run = open_run(str(tmp_path / ("run" if own else "new")))
    with pytest.raises(SourceError, match="run"):
        find_sources([str(tmp_path / source)], run)


def test_the_drawn_world_inside_of_a_run_is_a_source(tmp_path: Path) -> None:
    shop(tmp_path)
    for name in ("run", "new"):
        for source in ("run/source", "run/source/dataset.json"):
            files, _ = find_sources([str(tmp_path / source)], open_run(str(tmp_path / name)))
            assert [Path(file.name).name for file in files] == ["dataset.json"]


def test_a_run_next_to_its_file_in_one_folder(tmp_path: Path) -> None:
    """``--run . --source rows.json``: the file is the user's own, the folder is the run."""
    shop(tmp_path, ".")
    run = open_run(str(tmp_path))
    files, _ = find_sources([str(tmp_path / "rows.json")], run)
    assert [Path(file.name).name for file in files] == ["rows.json"]
    with pytest.raises(SourceError, match="is the run itself"):
        find_sources([str(tmp_path)], run)


def test_a_name_that_only_shares_a_prefix_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "run-data").mkdir()
    (tmp_path / "run-data" / "rows.json").write_text(ROWS)
    files, skipped = find_sources([str(tmp_path)], open_run(str(tmp_path / "run")))
    assert (len(files), skipped.run_files) == (1, 0)


@pytest.mark.parametrize("source", ["run/data", "run/data/rows.json", "run/mine/train"])
def test_a_folder_of_the_users_own_inside_the_run_is_a_source(tmp_path: Path, source: str) -> None:
    """``--run exp --source exp/data``: no job writes a folder of this name."""
    shop(tmp_path)
    path = tmp_path / source
    path = path if path.suffix else path / "rows.json"
    path.parent.mkdir(parents=True)
    path.write_text(ROWS)
    files, _ = find_sources([str(tmp_path / source)], open_run(str(tmp_path / "run")))
    assert [file.path for file in files] == [str(path)]


def test_folders_named_as_those_of_runs_are_sources(tmp_path: Path) -> None:
    names = [f"cat/ingest/{folder}/x.jsonl" for folder in ("parsed", "fetched", "pending", "sorted", "parsed/k")]
    for name in [*names, "cat/holder-1.json", "cat/rows.json"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(ROWS)
    files, skipped = find_sources([str(tmp_path)], open_run(str(tmp_path / "new")))
    assert (len(files), skipped.run_files) == (len(names) + 2, 0)


@pytest.mark.parametrize(
    "name",
    [
        f"ingest/parsed/{KEY}/000000.parquet",
        f"ingest/parsed/{KEY}/000000-e00000002.parquet",
        "lease/epoch-00000001.json",
        "holder-0123456789ab.json",
    ],
)
def test_an_interrupted_run_is_left_out_and_named(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / "old" / name, tmp_path / "old" / "source" / "a.json", tmp_path / "rows.json"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ROWS)
    files, skipped = find_sources([str(tmp_path)], open_run(str(tmp_path / "new")))
    assert [Path(file.name).name for file in files] == ["rows.json"]
    assert (skipped.run_files, skipped.run_folders) == (2, (str(tmp_path / "old"),))
