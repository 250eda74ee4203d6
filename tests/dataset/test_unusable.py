"""Sources in which no row could be used: the job fails with what was found and what is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from caslie_ray.cli import Arguments
from caslie_ray.errors import JobError
from caslie_ray.jobs import ingest_job, pipeline_job
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import open_run
from tests.dataset.sources import sentiment
from tests.dataset.world import png

pytestmark = pytest.mark.usefixtures("ray_cluster")


def arguments(folder: Path, profile: Profile, *sources: str) -> Arguments:
    return Arguments(open_run(str(folder / "run")), profile, False, sources, True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"title": "Mug", "image": "p.jpg"}, {"title": "Cup"}]', "2 rows in 1 file"),
        ("[]", "0 rows in 1 file"),
        ("<html></html>", "HTML"),
    ],
)
def test_no_usable_row_is_a_failure_each_time(
    tmp_path: Path, profile: Profile, text: str, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.json").write_text(text)
    given = arguments(tmp_path, profile, str(tmp_path / "rows.json"))
    jobs = (ingest_job, pipeline_job) if text == "[]" else (ingest_job, ingest_job)
    for job in jobs:
        with pytest.raises(JobError) as caught:
            job(given)
        message = str(caught.value)
        assert found in message
        for part in (
            "no row could be used",
            "JSON Lines",
            "Accepted: JSON, JSON Lines, Parquet, CSV and XML feeds, gzipped or not",
            "instruction",
            "sentiment_analysis",
            "rejects",
        ):
            assert part in message
    assert "caption\n" not in capsys.readouterr().out
    assert given.run.read_json("summary/ingest.json")["samples"] == 0
    assert given.run.read("rejects").num_rows == given.run.read_json("summary/ingest.json")["rejects"]["sample"]
    assert not given.run.files("captions")


def test_one_usable_row_is_enough(
    tmp_path: Path, profile: Profile, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "p.jpg").write_bytes(png())
    rows = [{"data": [sentiment(1)]}, {"title": "Mug"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "old.jsonl").write_bytes(
        json.dumps(sentiment(2, input={"review": "größer"}), ensure_ascii=False).encode("cp1252")
    )
    given = arguments(tmp_path, profile, str(tmp_path / "rows.jsonl"), str(tmp_path / "old.jsonl"))
    caplog.set_level("INFO")
    for _ in range(2):
        caplog.clear()
        assert ingest_job(given) == 0
        assert "cp1252: 1 row of 1 file," in caplog.text
        printed = capsys.readouterr().out
        assert "cp1252" in printed
        assert "old.jsonl" in printed
        summary = given.run.read_json("summary/ingest.json")
        assert summary["read_as"] == {
            "cp1252": {"rows": 1, "files": 1, "names": [str(tmp_path / "old.jsonl")]},
            "rows below a key": {"rows": 1, "files": 1, "names": [str(tmp_path / "rows.jsonl")]},
        }
    assert any("größer" in str(sample["input"]) for sample in given.run.read("samples").to_pylist())
