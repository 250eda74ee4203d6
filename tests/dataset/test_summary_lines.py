"""The printed summary of the ingest job."""

from __future__ import annotations

from caslie_ray.dataset import IngestSummary
from caslie_ray.dataset.summary_lines import summary_lines


def test_an_idle_ingest_and_one_that_did_work_are_described() -> None:
    idle = "\n".join(summary_lines(IngestSummary(files=1, rows=3, samples=3).as_dict()))
    assert "nothing to do" in idle
    assert "3 in 1 file\n" in idle
    assert "samples          3\n" in idle
    busy = IngestSummary(
        rows=3, samples_by_task={"x": {"ood": 1, "train": 2}}, rejects={"image": 2},
        reject_reasons={"image": {"truncated": 2}}, retryable_rejects=1, parsed_rows=3,
    )  # fmt: skip
    text = "\n".join(summary_lines(busy.as_dict()))
    assert "train 2 · ood 1" in text
    assert "2  image: truncated" in text
    assert "1 tried again by the next run" in text
