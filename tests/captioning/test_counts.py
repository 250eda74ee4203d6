"""Counts over rows of `captions`."""

from __future__ import annotations

from caslie_ray.captioning._counts import kind_of_error


def test_errors_are_counted_by_kind() -> None:
    image = "image 00ff00ff00ff00ff00ff00ff00ff00ff is not in the run's images table; run ingest again"
    assert kind_of_error(image) == "image … is not in the run's images table; run ingest again"
    assert kind_of_error("no quorum: 2 valid votes of 5 voters (phi: cut)") == "no quorum: # valid votes of # voters"
    assert kind_of_error("llama-3.2-1b wrote an empty caption") == "llama-3.2-1b wrote an empty caption"
