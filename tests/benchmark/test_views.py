from __future__ import annotations

from pathlib import Path

import pytest

from caslie_ray.benchmark._cpu_parts import Parts, measure_parts, split
from caslie_ray.benchmark._views import copy_table, images_of, questions_of, select, views_of, write_given
from caslie_ray.captioning import caption
from caslie_ray.errors import RunError
from caslie_ray.fusion import fuse
from caslie_ray.profiles import load_profile
from caslie_ray.storage.run import Run, open_run
from tests.worlds import fresh_run, profile, voter

GIVEN = ["captions.source=dataset", "votes.rule=always"]


@pytest.fixture(scope="module")
def fused(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = fresh_run(world, tmp_path_factory.mktemp("views") / "run")
    caption(run, load_profile("mini", GIVEN), quiet=True)
    fuse(run, load_profile("mini", GIVEN), quiet=True)
    return run


def test_views_come_from_all_partitions_each_with_its_image(fused: Run, tmp_path: Path) -> None:
    found = select(fused, open_run(str(tmp_path)), 20)
    views = views_of(found.views)
    assert found.counts["views"] == len(views) == 20
    assert {view.view_id for view in views} < {view.view_id for view in views_of(fused)}
    assert {view.image_id for view in views} == images_of(found.views).keys()
    assert len({view.image_id[0] for view in views}) > 8
    assert found.counts["images"] == len(images_of(found.views))
    assert [view.view_id for view in views_of(found.given)] == [view.view_id for view in views]


def test_a_run_with_fewer_views_gives_all_of_them(fused: Run, tmp_path: Path) -> None:
    found = select(fused, open_run(str(tmp_path)), 10_000)
    assert found.counts["views"] == len(views_of(fused))
    instructions = fused.read("instructions", ["split", "variant"]).to_pylist()
    splits = [row["split"] for row in instructions if row["variant"] == "caslie"]
    assert found.counts["questions"] == sum(split in ("ind", "ood") for split in splits)
    assert found.counts["examples"] == splits.count("train")


def test_questions_are_instructions_of_the_test_splits_with_their_captions(fused: Run, tmp_path: Path) -> None:
    found = select(fused, open_run(str(tmp_path)), 8)
    rows = {row["sample_id"]: row for row in fused.read("instructions").to_pylist() if row["variant"] == "caslie"}
    requests = questions_of(found.questions)
    assert len(requests) == 8
    assert all(rows[one.key]["split"] in ("ind", "ood") for one in requests)
    assert all(rows[one.key]["prompt"] == one.prompt.text for one in requests)
    assert any(one.prompt.fields for one in requests)
    assert {row["split"] for row in found.examples.read("instructions").to_pylist()} == {"train"}


def test_a_run_without_instructions_or_views(world: Path, tmp_path: Path) -> None:
    found = select(open_run(str(world)), open_run(str(tmp_path / "a")), 4)
    assert (found.counts["questions"], found.counts["examples"]) == (0, 0)
    with pytest.raises(RunError, match="run ingest first"):
        select(open_run(str(tmp_path / "none")), open_run(str(tmp_path / "b")), 4)


def test_captions_are_written_next_to_views_and_a_copy_is_a_run(fused: Run, tmp_path: Path) -> None:
    found = select(fused, open_run(str(tmp_path / "all")), 6)
    chosen = views_of(found.given)[0]
    write_given(found.given, {chosen.view_id: "a red hammer"})
    copy = open_run(str(tmp_path / "copy"))
    copy_table(found.given, copy, ("views", "images"))
    captions = {view.view_id: view.given_caption for view in views_of(copy)}
    assert captions[chosen.view_id] == "a red hammer"
    before = {view.view_id: view.given_caption for view in views_of(found.views)}
    assert {**captions, chosen.view_id: before[chosen.view_id]} == before
    assert images_of(copy) == images_of(found.views)


def test_parts_of_the_cpu_time(fused: Run, tmp_path: Path) -> None:
    found = select(fused, open_run(str(tmp_path / "run")), 16)
    path = tmp_path / "p.yaml"
    path.write_text(profile(voter("phi")).model_dump_json())  # JSON is YAML
    parts = measure_parts(str(path), found.views.uri, found.given.uri)
    assert all(0 < part < 1000 for part in parts), parts
    assert parts.decoding > parts.tokenizing  # an image of 256 pixels takes more than a prompt


def test_the_rest_of_the_jobs_cpu_time_is_attributed_to_ray() -> None:
    found = split(Parts(1.0, 2.0, 4.0, 0.5), 30.0, 40.0)
    assert found == {
        "reading": 1.0, "tokenizing": 2.0, "decoding": 4.0, "model": 24.0, "writing": 0.5, "ray": 8.5, "job": 40.0,
    }  # fmt: skip
    unknown = split(Parts(1.0, 2.0, 4.0, 0.5), 30.0, None)
    assert (unknown["ray"], unknown["job"], unknown["model"]) == (None, None, 24.0)
