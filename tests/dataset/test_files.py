"""Files behind references: what lies outside of the roots is not opened, and a silent store costs one wait."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from caslie_ray.dataset import _deduplication, _files
from caslie_ray.dataset._decoding import ImageError
from caslie_ray.dataset._deduplication import References
from caslie_ray.dataset._fetcher import BucketReader, FetchBlock, SurveyCounts
from caslie_ray.dataset._files import Files, store_of
from caslie_ray.dataset._headers import RequestHeaders
from caslie_ray.dataset._intermediate import PARSED, fold, write_sorted
from caslie_ray.dataset._ray import each_of_stream
from caslie_ray.dataset._roots import Root
from caslie_ray.dataset._shuffle import Group
from caslie_ray.profiles import Profile
from caslie_ray.storage.partitions import partition_names
from caslie_ray.storage.retries import RetryPolicy
from caslie_ray.storage.run import open_run
from tests.object_store import ObjectStore, free_port


def test_a_symlink_swapped_in_before_opening_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("shop", "private"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(name.encode())
    found = Files([Root.of(str(tmp_path / "shop"))])
    locator = f"file:{tmp_path}/shop/a.png"
    assert found.read(locator, 100) == b"shop"
    opened = os.open

    def swapped(path: str, flags: int) -> int:
        (tmp_path / "shop").rename(tmp_path / "aside")
        (tmp_path / "shop").symlink_to(tmp_path / "private")
        return opened(path, flags)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(ImageError, match="refused path"):
        found.read(locator, 100)


def test_an_image_changes_its_key_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"1234")
    locator = f"file:{path}"
    found = Files([Root.of(str(tmp_path))])
    assert found.keys([locator]) == {locator: f"{locator}|4|{path.stat().st_mtime_ns}"}


def test_a_store_that_does_not_answer_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_files, "_PATIENCE", RetryPolicy(total_s=0.5, first_s=0.1))
    root = Root.of(ObjectStore(free_port()).uri("shop", "images"))
    locators = [root.locator(f"/images/{number}.png") for number in range(20)]
    found = Files([root])
    begun = time.monotonic()
    for locator in locators:
        with pytest.raises(ImageError, match="no answer") as caught:
            found.read(locator, 100)
        assert caught.value.retryable
    took_s = time.monotonic() - begun
    assert 0.4 < took_s < 10
    assert all(isinstance(key, ImageError) and key.retryable for key in found.keys(locators).values())
    assert time.monotonic() - begun < took_s + 0.5


def test_a_bucket_skips_stores_that_did_not_respond_before(tmp_path: Path, profile: Profile) -> None:
    silent, here = Root.of(ObjectStore(free_port()).uri("shop", "images")), Root.of(str(tmp_path))
    (tmp_path / "0.png").write_bytes(b"x")
    locators = [root.locator(f"{root.path}/{number}.png") for root in (silent, here) for number in range(30)]
    run = open_run(str(tmp_path / "run"))
    rows = {"locator": locators, "place": [0] * 60, "group": ["0"] * 60, "hash": ["0"] * 60}
    path = write_sorted(run, "references", "0", "references", pa.table(rows))
    store = store_of(locators[0])
    reader = BucketReader(run, profile.images, [str(path)], [], [silent, here], block=8, silent=frozenset([store]))
    begun = time.monotonic()
    (block, counts) = list(reader(""))
    assert time.monotonic() - begun < 5
    assert isinstance(block, FetchBlock)
    assert [item.locator for item in block.items] == [locators[30]]
    assert isinstance(counts, SurveyCounts)
    assert (counts.pending, counts.silent) == (1, frozenset([store]))
    keys = {row["locator"]: row for row in run.read_file(counts.plan).to_pylist()}
    assert keys.keys() == set(locators)
    assert all(keys[locator]["reason"].startswith("no answer") for locator in locators[:30])
    assert keys[locators[30]]["key"].startswith(locators[30])
    assert all(keys[locator]["reason"].startswith("missing file") for locator in locators[31:])


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("stores", [True, False])
def test_buckets_with_references_to_stores_are_read_in_waves_that_double(
    tmp_path: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch, stores: bool
) -> None:
    """A store that does not answer then costs one wait, not one per bucket."""
    monkeypatch.setattr(_files, "_PATIENCE", RetryPolicy(total_s=0.5, first_s=0.1))
    waves: list[int] = []
    silent: list[frozenset[str]] = []

    def counted(wave: Sequence[Any], reader: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        waves.append(len(wave))
        silent.append(reader._silent)
        return each_of_stream(wave, reader, *arguments, **options)

    monkeypatch.setattr(_deduplication, "each_of_stream", counted)
    root = Root.of(ObjectStore(free_port()).uri("shop", "images")) if stores else Root.of(str(tmp_path / "shop"))
    run = open_run(str(tmp_path / "run"))
    locators = [[root.locator(f"{root.path}/{number}.png") for number in range(100)]]
    parsed = pa.table({"locators": pa.array(locators, pa.list_(pa.string()))})
    run.write("ingest/parsed/a", "000000", fold(parsed.to_pylist(), PARSED), PARSED)
    (chunk,) = run.files("ingest/parsed/a")
    references = References(run, profile, RequestHeaders({}), 100, quiet=True, buckets=partition_names(1))
    references.shuffle([Group("00000000", ((0, chunk),))])
    assert references.fetch([root])[:2] == (0, set())
    assert waves == ([1, 2, 4, 8, 1] if stores else [16])
    if stores:
        assert silent == [frozenset(), *[frozenset([store_of(locators[0][0])])] * 4]
