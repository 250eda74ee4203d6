"""Streams of an ingest through Ray Data."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import ray

from caslie_ray.dataset._ray import each_of_stream


def test_a_slow_item_is_not_ended_by_ray_data(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray Data ends an execution without progress after half an hour by default; here after two seconds."""
    monkeypatch.setattr(ray.data.DataContext.get_current(), "execution_no_progress_timeout_s", 2)

    def split(item: int) -> Iterator[int]:
        time.sleep(4)
        yield item

    assert list(each_of_stream([1], split, lambda part: part + 1, concurrency=1, memory=0)) == [2]
