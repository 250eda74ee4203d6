"""Exports in tasks: the same bytes as in one process, resumable, and left alone where another attempt finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from caslie_ray.export import _export
from caslie_ray.storage.run import Run, open_run
from tests.export.shop import exported, shop

FORMATS = {"csv": "x.csv", "parquet": "x.parquet", "jsonl": "x.jsonl", "dataset": "x", "merchant_center": "x.tsv"}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = open_run(str(tmp_path / "run"))
    shop(run)
    return run


def in_groups_of(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr("caslie_ray.export._workspace._GROUP_BYTES", size)


def files_of(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("form", ["csv", "dataset"])
def test_tasks_write_the_bytes_that_one_process_writes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    summary = exported(run, tmp_path / "alone" / FORMATS[form], format=form)
    monkeypatch.setattr("caslie_ray.cluster.distribution.DISTRIBUTE_FROM", 1)
    in_groups_of(monkeypatch, 20_000)
    other = open_run(str(tmp_path / "other"))
    shop(other, caption_digits=0)
    again = exported(other, tmp_path / "tasks" / FORMATS[form], format=form)
    assert files_of(tmp_path / "tasks") == files_of(tmp_path / "alone") != {}
    varying = ("run", "to", "seconds")
    assert {**again, **dict.fromkeys(varying)} == {**summary, **dict.fromkeys(varying)}


@pytest.mark.parametrize("form", FORMATS)
def test_the_partitions_of_captions_do_not_matter(run: Run, tmp_path: Path, form: str) -> None:
    exported(run, tmp_path / "one" / FORMATS[form], format=form)
    other = open_run(str(tmp_path / "other"))
    shop(other, caption_digits=2 if form == "csv" else 0)
    exported(other, tmp_path / "two" / FORMATS[form], format=form)
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


@pytest.mark.parametrize("step", ["send_captions", "send_requests", "join_bucket", "write_parts"])
def test_an_export_that_was_killed_redoes_only_what_is_missing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    exported(run, tmp_path / "whole.csv")
    in_groups_of(monkeypatch, 4_000)
    real = getattr(_export, step)
    calls: list[list[int]] = [[], []]
    attempt = 0

    def killed(space: object, number: int, *more: object) -> object:
        if attempt == 0 and len(calls[0]) == 2:
            raise KeyboardInterrupt
        calls[attempt].append(number)
        return real(space, number, *more)

    monkeypatch.setattr(_export, step, killed)
    with pytest.raises(KeyboardInterrupt):
        exported(run, tmp_path / "again.csv")
    assert not (tmp_path / "again.csv").exists()
    attempt = 1
    exported(run, tmp_path / "again.csv")
    assert len(calls[0]) == 2
    assert calls[1]
    assert not set(calls[0]) & set(calls[1])
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def stopped(*_: object) -> None:
    raise KeyboardInterrupt


def test_parts_that_are_there_are_not_written_again(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    real = Run.put

    def counted(run: Run, path: str, data: Any) -> None:
        if path.endswith(".rows"):
            written.append(Path(path).name)
        real(run, path, data)

    monkeypatch.setattr(Run, "put", counted)
    monkeypatch.setattr(_export, "deliver_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        exported(run, tmp_path / "out.csv")
    (space,) = run.listed(run.path("export"))
    parts = sorted(Path(space.path).glob("part-*.rows"))
    assert written == [path.name for path in parts]
    lost, damaged, *_ = parts
    lost.unlink()
    damaged.with_suffix(".json").write_text("{")
    written.clear()
    with pytest.raises(KeyboardInterrupt):
        exported(run, tmp_path / "out.csv")
    assert written == [lost.name, damaged.name]
    monkeypatch.undo()
    exported(run, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes().count(b"\r\n") == 1 + 80
    assert not Path(space.path).exists()


def test_parts_of_other_inputs_or_options_are_not_used(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_export, "deliver_file", stopped)
    several: tuple[dict[str, Any], ...] = ({}, {"every": True}, {"contexts": ("product",)}, {"format": "shopify"})
    for options in several:
        with pytest.raises(KeyboardInterrupt):
            exported(run, tmp_path / "out.csv", **options)
        assert len(run.listed(run.path("export"))) == 1
    monkeypatch.undo()
    shop(run, captioned=0.5)
    summary = exported(run, tmp_path / "out.csv", format="shopify")
    assert (summary["won"], summary["missing"]) == (20, 40)
