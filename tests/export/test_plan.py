"""What an export would write."""

from __future__ import annotations

from pathlib import Path

import pytest

from caslie_ray.cli import COMPLETE
from caslie_ray.commands import caslie
from caslie_ray.export._plan import plan_export
from caslie_ray.export.options import ExportOptions
from caslie_ray.storage.run import open_run
from tests.export.shop import shop


def test_the_plan_shows_rows_files_format_and_target(tmp_path: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    shop(run, products=3)
    assert plan_export(run, ExportOptions(f"{tmp_path}/x.csv", "shopify")) == [
        "products      3 rows",
        "captions      12 rows",
        "rows          captions that won",
        "contexts      alt_text",
        "format        shopify",
        "files         one",
        f"to            {tmp_path}/x.csv",
        "models        none",
    ]
    lines = plan_export(run, ExportOptions(f"{tmp_path}/x", every=True))
    parts = len(run.by_partition("products"))
    for line in ("rows          every view", "contexts      all", "format        parquet"):
        assert line in lines
    assert f"files         up to {parts}, one per partition with rows" in lines


def test_a_plan_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = open_run(str(tmp_path / "run"))
    shop(run, products=3, captioned=0.5)
    before = sorted(tmp_path.rglob("*"))
    assert caslie(["export", "--run", run.root, "--to", f"{tmp_path}/x.csv", "--plan"]) == COMPLETE
    assert "files         one" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
