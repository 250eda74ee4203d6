"""What takes long: large sources, and workers that die."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest

from caslie_ray.dataset import ingest
from caslie_ray.dataset._columns import Columns
from caslie_ray.dataset._fetcher import FetchBlock, Fetched, Fetcher, SurveyCounts
from caslie_ray.dataset._reading import read_source
from caslie_ray.dataset._sources import find_sources
from caslie_ray.profiles import Profile, SourceKeys
from caslie_ray.storage.run import open_run
from tests.dataset.world import category, png, write_json

_MEGABYTE = 1 << 20


def test_an_array_of_a_hundred_megabytes_is_read_in_flat_memory(tmp_path: Path) -> None:
    row = json.dumps(category("a title", "images/a.png", review='words and "quotes" ' * 200))
    count = 100 * _MEGABYTE // len(row)
    with (tmp_path / "large.json").open("w") as file:
        file.write("[")
        file.writelines(row + "," for _ in range(count))
        file.write(row + "]")
    (source,), _ = find_sources([str(tmp_path / "large.json")])
    process = psutil.Process()
    seen = most = 0
    before = process.memory_info().rss
    for record in read_source(source, Columns.of(SourceKeys())):
        assert record.row is not None
        seen += 1
        if seen % 1000 == 0:
            most = max(most, process.memory_info().rss - before)
    assert seen == count + 1
    assert most < 40 * _MEGABYTE


@pytest.mark.chaos
@pytest.mark.usefixtures("ray_cluster")
def test_an_image_that_ends_its_worker_fails_alone(
    tmp_path: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deadly(Fetcher):
        def __call__(self, part: FetchBlock | SurveyCounts) -> Fetched | SurveyCounts:
            if isinstance(part, FetchBlock) and any(item.locator.endswith("/3.png") for item in part.items):
                os._exit(1)
            return super().__call__(part)

    for n in range(20):
        (tmp_path / f"{n}.png").write_bytes(png(n))
    source = write_json(tmp_path / "rows.json", [category(f"t{n}", f"{n}.png") for n in range(20)])
    run = open_run(str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr("caslie_ray.dataset._deduplication.Fetcher", Deadly)
        summary = ingest(run, [source], profile, quiet=True)
    assert (summary.samples, summary.images, summary.retryable_rejects) == (20, 19, 1)
    (reject,) = run.read("rejects").to_pylist()
    assert reject["source"] == "3.png"
    assert reject["reason"].startswith("worker lost")
    assert ingest(run, [source], profile, quiet=True).images == 20


@pytest.mark.usefixtures("ray_cluster")
def test_many_rows_of_many_images(tmp_path: Path, profile: Profile) -> None:
    (tmp_path / "images").mkdir()
    for n in range(300):
        (tmp_path / "images" / f"{n}.png").write_bytes(png(n))
    rows: list[dict[str, Any]] = []
    for n in range(4000):
        places = [(n * 7 + step) % 300 for step in range(12)]
        titles = [f"product {place}" for place in places]
        rows.append(
            {
                "task": "SR",
                "split": ("train", "val", "test", "ood")[n % 4],
                "input": [f"{at + 1}th: {title}" for at, title in enumerate(titles[:8])],
                "options": [f"{'ABCD'[at]}: {title}" for at, title in enumerate(titles[8:])],
                "output": f"A: {titles[8]}",
                "instruction": f"row {n}",
                "images": [f"images/{place}.png" for place in places],
            }
        )
    run = open_run(str(tmp_path / "run"))
    summary = ingest(run, [write_json(tmp_path / "rows.json", rows)], profile, quiet=True)
    assert (summary.samples, summary.images, summary.views) == (4000, 300, 300)
    assert summary.references == 48_000
    assert summary.repeated_views == 48_000 - 300
