"""Where an export goes, and in which format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from caslie_ray.errors import JobError, RunError
from caslie_ray.export._formats import FORMATS
from caslie_ray.export._target import Target, target_of
from caslie_ray.export.options import ENDINGS, ExportOptions
from caslie_ray.profiles import ProfileError
from caslie_ray.storage.run import Run, open_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(str(tmp_path / "run"))


def target(run: Run, to: object, **options: Any) -> Target:
    return target_of(ExportOptions(str(to), **options), run)


def test_every_format_has_endings() -> None:
    assert set(FORMATS) == set(ENDINGS)


@pytest.mark.parametrize(
    ("name", "form", "found", "is_file"),
    [
        ("x.csv", None, "csv", True),
        ("X.CSV", None, "csv", True),
        ("x.jsonl", None, "jsonl", True),
        ("x.parquet", None, "parquet", True),
        ("x.csv", "shopify", "shopify", True),
        ("x.tsv", "merchant_center", "merchant_center", True),
        ("x.txt", "merchant_center", "merchant_center", True),
        ("x", None, "parquet", False),
        ("x", "csv", "csv", False),
        ("x.csv/", None, "parquet", False),
        ("v1.2/", "jsonl", "jsonl", False),
        ("x", "dataset", "dataset", False),
        ("v1.2", "dataset", "dataset", False),
    ],
)
def test_the_name_and_the_format(
    run: Run, tmp_path: Path, name: str, form: str | None, found: str, is_file: bool
) -> None:
    chosen = target(run, f"{tmp_path}/{name}", format=form)
    assert (chosen.format, chosen.is_file) == (found, is_file)
    assert chosen.path == f"{tmp_path}/{name}".rstrip("/")
    assert not Path(chosen.path).exists()


def test_a_folder_that_exists_is_a_folder_whatever_its_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    assert not target(run, tmp_path / "x.csv").is_file


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("x.xlsx", {}, r"the ending \.xlsx is not known; end the name in \.csv, \.jsonl, \.parquet"),
        ("x.parquet", {"format": "csv"}, r"files of the format csv end in \.csv; end the name in / for a folder"),
        ("x.tsv", {}, r"the ending \.tsv is not known"),
        ("x.csv", {"format": "shopify", "every": True}, "shopify has no column for a verdict"),
        ("x.tsv", {"format": "merchant_center", "every": True}, "captions that lost would be published"),
    ],
)
def test_options_that_do_not_fit(run: Run, tmp_path: Path, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ProfileError, match=message):
        target(run, tmp_path / name, **options)


def test_tables_of_the_run_are_not_written_to(run: Run) -> None:
    for place in ("", "captions", "captions/out.csv", "./export/x", "x/../lease/out.csv"):
        with pytest.raises(JobError, match="belongs to the run"):
            target(run, f"{run.root}/{place}", format="csv")
    assert target(run, f"{run.root}/published/out.csv").is_file


def test_a_folder_cannot_replace_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(JobError, match="choose another name"):
        target(run, tmp_path / "x")


def test_credentials_are_not_shown(run: Run) -> None:
    with pytest.raises((ProfileError, RunError)) as caught:
        target(run, "nowhere://me:secret@bucket/x.csv")
    assert "secret" not in str(caught.value)
