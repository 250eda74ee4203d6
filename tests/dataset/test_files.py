"""Files behind references: what lies outside of the roots is not opened, and a silent store costs one wait."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from caslie_ray.cluster.partition_map import map_partitions
from caslie_ray.dataset import _lookup, files
from caslie_ray.dataset._lookup import look_up
from caslie_ray.dataset.decoding import ImageError
from caslie_ray.dataset.files import Files
from caslie_ray.dataset.roots import Root
from caslie_ray.storage.retries import RetryPolicy
from tests.object_store import ObjectStore, free_port, object_store


def test_a_link_that_is_put_in_between_gains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr(files, "_PATIENCE", RetryPolicy(total_s=0.5, first_s=0.1))
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


@pytest.mark.usefixtures("ray_cluster")
def test_a_silent_store_costs_one_wait_however_many_images_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lookup, "_BLOCK", 2)
    silent, here = Root.of(ObjectStore(free_port()).uri("shop", "images")), Root.of(str(tmp_path))
    (tmp_path / "0.png").write_bytes(b"x")
    locators = [root.locator(f"{root.path}/{number}.png") for root in (silent, here) for number in range(30)]
    begun = time.monotonic()
    found = dict(look_up(locators, [silent, here], concurrency=1))
    assert found.keys() == set(locators)
    assert time.monotonic() - begun < 60
    told = {locator: key.reason if isinstance(key, ImageError) else key for locator, key in found.items()}
    assert all(told[locator].startswith("no answer") for locator in locators[:30])
    assert told[locators[30]].startswith(locators[30])
    assert all(told[locator].startswith("missing file") for locator in locators[31:])


@pytest.mark.usefixtures("ray_cluster")
def test_waves_of_blocks_double_and_files_of_this_machine_need_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lookup, "_BLOCK", 1)
    waves: list[tuple[int, int]] = []

    def counted(work: Any, wave: Sequence[Any], *arguments: Any, **options: Any) -> Iterator[Any]:
        here = sum(block[0].startswith("file:") for block in wave)
        waves.append((here, len(wave) - here))
        return map_partitions(work, wave, *arguments, **options)

    monkeypatch.setattr(_lookup, "map_partitions", counted)
    with object_store(buckets=["shop"]) as store:
        remote, here = Root.of(store.uri("shop", "images")), Root.of(str(tmp_path))
        locators = [root.locator(f"{root.path}/{number}.png") for root in (remote, here) for number in range(20)]
        found = dict(look_up(locators, [remote, here], concurrency=1))
    assert found.keys() == set(locators)
    assert all(isinstance(key, ImageError) and key.reason.startswith("missing file") for key in found.values())
    assert waves == [(20, 1), (0, 4), (0, 8), (0, 7)]
