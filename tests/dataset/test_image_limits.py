"""Limits on decoding, from one run to the next."""

from __future__ import annotations

import base64
from pathlib import Path

from caslie_ray.dataset import ingest
from caslie_ray.profiles import load_profile
from caslie_ray.storage.run import open_run
from tests.dataset.world import category, encoded, picture, write_json


def test_a_limit_that_is_raised_lets_refused_images_in(ray_cluster: None, tmp_path: Path) -> None:
    """Lowered again, it takes none of them away and has nothing read again."""
    (tmp_path / "file.jpg").write_bytes(encoded(picture(1), "JPEG", progressive=True))
    inside = base64.b64encode(encoded(picture(2), "JPEG", progressive=True)).decode()
    source = write_json(
        tmp_path / "rows.json", [category("a", "file.jpg"), category("b", f"data:image/jpeg;base64,{inside}")]
    )
    run = open_run(str(tmp_path / "run"))
    few, many = load_profile("mini", ["images.max_scans=5"]), load_profile("mini", ["images.max_scans=20"])

    refused = ingest(run, [source], few, quiet=True)
    assert (refused.images, refused.rejects["image"], refused.retryable_rejects) == (0, 2, 0)
    assert set(refused.reject_reasons["image"]) == {"too many scans"}
    assert ingest(run, [source], few, quiet=True).fetched == 0

    assert ingest(run, [source], many, quiet=True).images == 2
    again = ingest(run, [source], few, quiet=True)
    assert (again.images, again.parsed_rows, again.fetched) == (2, 0, 0)
