import json
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import pytest

from caslie_ray.miniature import WorldSize, write_dataset
from caslie_ray.miniature._dataset import OOD_TASKS, TRUTH_IMAGES, TRUTH_VIEWS
from caslie_ray.miniature.catalogue import SPORTS, TOOLS
from caslie_ray.tasks import TASKS, find_task

SMALL = WorldSize(train=5, validation=2, ind=3, ood=3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("world"), SMALL, seed=3).parent


def _records(folder: Path) -> list[dict[str, str]]:
    records: list[dict[str, str]] = json.loads((folder / "dataset.json").read_text())
    return records


def _truth(folder: Path, name: str) -> list[dict[str, Any]]:
    return list(pq.read_table(folder / "truth" / f"{name}.parquet").to_pylist())


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_seed_writes_the_same_bytes(world: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "again", SMALL, seed=3)
    assert _bytes(tmp_path / "again") == _bytes(world)
    write_dataset(tmp_path / "other", SMALL, seed=4)
    assert (tmp_path / "other/dataset.json").read_bytes() != (world / "dataset.json").read_bytes()


def test_records_are_in_the_released_format(world: Path) -> None:
    keys = {"task", "split", "instruction", "input", "options", "output", "images", "caption_info"}
    for record in _records(world):
        assert set(record) == keys
        assert all(isinstance(value, str) for value in record.values())
        task = find_task(record["task"])
        assert record["task"] == task.name
        images, captions = json.loads(record["images"]), json.loads(record["caption_info"])
        assert len(images) == len(captions)
        assert all((world / name).is_file() for name in images)
        sample = task.parse(record)
        assert sample.output in sample.options
        assert len(sample.images) == len(images)
    shapes = {record["task"]: json.loads(record["input"]) for record in _records(world)}
    assert set(shapes) == set(TASKS)
    assert shapes["sequential_recommendation"][0].startswith("1st: ")
    assert set(shapes["product_relation_prediction"]) == {"product 1", "product 2"}
    assert set(shapes["multiclass_product_classification"]) == {"query", "product title"}


def test_splits_have_the_required_counts_tasks_and_domains(world: Path) -> None:
    counts: dict[tuple[str, str], int] = {}
    for record in _records(world):
        task = find_task(record["task"])
        split = task.parse(record).split
        counts[task.code, split] = counts.get((task.code, split), 0) + 1
    codes = [task.code for task in TASKS.values()]
    wanted = {(code, split): n for code in codes for split, n in (("train", 5), ("validation", 2), ("ind", 3))}
    assert counts == wanted | {(code, "ood"): 3 for code in OOD_TASKS}
    pictures = {row["image"]: row for row in _truth(world, "images")}
    for row in _truth(world, "views"):
        allowed = SPORTS if row["split"] == "ood" else TOOLS
        picture = pictures[row["image"]]
        assert picture["product"]["category"] in allowed
        assert picture["shown"] is None or picture["shown"]["category"] in allowed


def test_no_input_occurs_twice(world: Path) -> None:
    inputs = [(record["task"], record["input"], record["options"]) for record in _records(world)]
    assert len(set(inputs)) == len(inputs)


def test_the_truth_has_a_row_for_each_image_and_each_view(world: Path) -> None:
    for name, schema in (("images", TRUTH_IMAGES), ("views", TRUTH_VIEWS)):
        assert pq.read_schema(world / "truth" / f"{name}.parquet").equals(schema)
    records = _records(world)
    views = _truth(world, "views")
    expected = [(i, j, name) for i, r in enumerate(records) for j, name in enumerate(json.loads(r["images"]))]
    assert [(row["row"], row["position"], row["image"]) for row in views] == expected
    for row in views:
        record = records[row["row"]]
        assert row["sample_id"] == find_task(record["task"]).parse(record).sample_id
        assert json.loads(record["caption_info"])[row["position"]] == row["caption"]
    pictures = _truth(world, "images")
    assert {row["image"] for row in pictures} == {row["image"] for row in views}
    assert {f"images/{p.name}" for p in (world / "images").iterdir()} == {row["image"] for row in pictures}


def test_the_truth_is_consistent(world: Path) -> None:
    pictures = {row["image"]: row for row in _truth(world, "images")}
    for picture in pictures.values():
        shown, product = picture["shown"], picture["product"]
        assert (shown is None) == (picture["kind"] in ("placeholder", "blurred"))
        assert (shown == product) == (picture["kind"] == "informative")
    for row in _truth(world, "views"):
        kind = pictures[row["image"]]["kind"]
        assert (row["usefulness"] == "misleading") == (kind == "wrong")
        assert (row["usefulness"] == "useful") == (kind == "informative" and bool(row["lacks"]))
        assert set(row["lacks"]) <= set(row["asks"])


def test_the_default_world_is_of_the_size_of_a_demo(tmp_path: Path) -> None:
    views = set()
    folder = write_dataset(tmp_path).parent
    for record in _records(folder):
        task = find_task(record["task"])
        sample = task.parse(record)
        for image, prompts in zip(sample.images, task.view_prompts(sample), strict=True):
            views.add((image, prompts.caption.text, prompts.quality.text))
    assert 700 <= len(views) <= 1000


@pytest.mark.parametrize(("train", "shelf"), [(-1, 6), (1, 2)])
def test_a_world_of_an_impossible_size_is_refused(train: int, shelf: int) -> None:
    with pytest.raises(ValueError, match="at least"):
        WorldSize(train=train, shelf=shelf)


@pytest.mark.parametrize("combinations", ["seen", "held_out"])
def test_a_world_may_contain_only_what_was_trained_on_or_only_what_was_not(
    tmp_path: Path, combinations: Literal["seen", "held_out"]
) -> None:
    size = WorldSize(train=2, validation=0, ind=1, ood=2, combinations=combinations)
    write_dataset(tmp_path, size)
    images = pq.read_table(tmp_path / "truth" / "images.parquet").to_pylist()
    assert {row["held_out"] for row in images} == {combinations == "held_out"}
    assert {row["kind"] for row in images} >= {"informative", "wrong"}
