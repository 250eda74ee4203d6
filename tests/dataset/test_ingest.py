"""Sources become tables, on a real Ray."""

from __future__ import annotations

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from caslie_ray.dataset import IngestSummary, ingest, plan_ingest
from caslie_ray.errors import SourceError
from caslie_ray.hashing import content_id
from caslie_ray.profiles import ImageSettings, Profile
from caslie_ray.storage.lease_files import Fence
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS
from caslie_ray.tasks import TASKS
from tests.dataset.world import (
    Site,
    category,
    encoded,
    opened,
    picture,
    png,
    relation,
    stopped_before_tables,
    write_json,
)

pytestmark = pytest.mark.usefixtures("ray_cluster")

TABLES = ("samples", "images", "views", "rejects")


def bring(run: Run, profile: Profile, *sources: str, **options: Any) -> IngestSummary:
    return ingest(run, sources, profile, quiet=True, **options)


def rows(run: Run, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run.read(table).to_pylist()
    return found


def with_images(profile: Profile, **changes: Any) -> Profile:
    images = ImageSettings(**(profile.images.model_dump() | changes))
    return profile.model_copy(update={"images": images})


def state(run: Run) -> dict[str, tuple[int, int]]:
    paths = [path for table in TABLES for path in run.files(table)]
    return {info.path: (info.size, info.mtime_ns) for info in run.fs.get_file_info(paths)}


def the_same(one: Run, other: Run) -> bool:
    return all(
        one.read_file(a).equals(other.read_file(b))
        for table in TABLES
        for a, b in zip(sorted(one.files(table)), sorted(other.files(table)), strict=True)
    )


def bad_files(folder: Path) -> dict[str, str]:
    """Write a file of each kind that cannot be used; return the head of the reason of each."""
    folder.mkdir()
    kinds = {
        "truncated.png": (png()[:200], "truncated or damaged image"),
        "truncated.jpg": (encoded(picture(), "JPEG")[:300], "truncated or damaged image"),
        "again.jpg": (encoded(picture(), "JPEG")[:300], "truncated or damaged image"),
        "empty.jpg": (b"", "empty file"),
        "page.jpg": (b"<html><body>404</body></html>", "not an image"),
        "drawing.png": (b"<svg xmlns='x'/>", "not an image"),
        "wide.png": (encoded(Image.new("1", (3000, 1100))), "too many pixels"),
        "heavy.png": (bytes(300_001), "too many bytes"),
    }
    for name, (data, _) in kinds.items():
        (folder / name).write_bytes(data)
    return {f"images/{name}": reason for name, (_, reason) in kinds.items()} | {
        "images/none.png": "missing file",
        "images": "not a file",
        "ftp://example.com/a.png": "unsupported reference",
        "": "missing image",
    }


def test_every_kind_of_failure_affects_only_its_own_row(tmp_path: Path, profile: Profile) -> None:
    profile = with_images(profile, max_pixels=3_000_000, max_bytes=300_000)
    bad = bad_files(tmp_path / "images")
    (tmp_path / "images" / "good.png").write_bytes(png(1))
    (tmp_path / "copy.png").write_bytes(png(1))
    good = "images/good.png"
    data: list[Any] = [category(f"title {n}", name) for n, name in enumerate(bad)]
    data += [
        category("good", good),
        category("good", str(tmp_path / "copy.png")),
        category("good", good),
        category("good", good, "test"),
        relation("first", "second", ["images/page.jpg", good]),
        relation("only one", "of two", [good]),
        category("", good),
        category("no answer", good, output=float("nan")),
        category("another answer", good, output="none of them"),
        category("no split", good, split=""),
        category("odd images", good, images=[[1], {"x": 2}]),
        {"task": "SA", "split": "val", "input": "very so good " * 80_000, "output": "positive", "images": [good]},
        {"task": "nonsense"},
        {},
        7,
    ]
    source = tmp_path / "rows.json"
    source.write_text(json.dumps(data))
    run = open_run(str(tmp_path / "run"))
    summary = bring(run, profile, str(source))

    for table in TABLES:
        for path in run.files(table):
            assert pq.read_schema(path).equals(SCHEMAS[table])
    samples = rows(run, "samples")
    views = {view["view_id"]: view for view in rows(run, "views")}
    images = {image["image_id"]: image for image in rows(run, "images")}
    rejects = rows(run, "rejects")

    # Every position without a view is one reject, with its reference as the source has it.
    lost = [r for r in rejects if r["kind"] == "image"]
    for source_text, reason in bad.items():
        matching = [r for r in lost if r["source"] == source_text]
        assert matching, source_text
        assert all(r["reason"].startswith(reason) for r in matching), matching
    positions = [view_id for sample in samples for view_id in sample["view_ids"]]
    assert positions.count(None) == len(lost) == summary.lost_references
    assert {view_id for view_id in positions if view_id} == set(views)

    # A rejected image keeps its position.
    (pair,) = [s for s in samples if s["task"] == "product_relation_prediction" and "first" in str(s)]
    assert pair["view_ids"][0] is None
    assert "second" in views[pair["view_ids"][1]]["caption_prompt"]

    # One image under two names is stored once; a row that repeats is one sample, kept in train.
    assert len(images) == 1
    assert next(iter(images)) == content_id(png(1))
    assert [s["split"] for s in samples if "good" in s["input"][0]["text"][:4]] == ["train", "train"]
    assert summary.repeats == 1
    reasons = [r["reason"] for r in rejects if r["kind"] == "sample"]
    assert any(reason.startswith("repeated in split ind: the same sample is in split train at") for reason in reasons)

    # The others give their position and the error.
    assert any("title" in reason for reason in reasons)
    assert any(reason.startswith("output 'none of them' is none of the options") for reason in reasons)
    assert summary.unlabelled == sum(not sample["output"] for sample in samples) == 1
    assert any("split" in reason for reason in reasons)
    assert sum("task" in reason or "no row" in reason for reason in reasons) == 3
    assert all(r["location"].startswith(f"{source}:") for r in rejects)
    assert summary.rows == len(data)
    assert summary.samples + summary.repeats + summary.rejects["sample"] == len(data)
    assert any(len(s["input"][0]["text"]) > 1_000_000 for s in samples)

    # A second run does nothing.
    before = state(run)
    again = bring(run, profile, str(source))
    assert (again.parsed_rows, again.fetched, again.written_files) == (0, 0, 0)
    assert state(run) == before
    this_job = {"parsed_rows": 0, "fetched": 0, "written_files": 0, "seconds": 0.0}
    assert again.as_dict() | this_job == summary.as_dict() | this_job
    assert plan_ingest(run, [str(source)], profile).lines()[-1] == "nothing to read or fetch"


def test_all_formats_give_the_same_tables(tmp_path: Path, profile: Profile) -> None:
    profile = profile.model_copy(update={"ingest": profile.ingest.model_copy(update={"chunk_rows": 3})})
    (tmp_path / "images").mkdir()
    for n in range(10):
        (tmp_path / "images" / f"{n}.png").write_bytes(png(n))
    data = [category(f"title {n}", f"images/{n}.png", "ood" if n % 3 else "train") for n in range(10)]
    data += [relation(f"p{n}", f"p{n + 1}", [f"images/{n}.png", f"images/{n + 1}.png"]) for n in range(9)]
    plain = [row | {"input": json.dumps(row["input"])} if isinstance(row["input"], dict) else row for row in data]
    write_json(tmp_path / "array.json", data)
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, data)))
    texts = [{key: value if isinstance(value, str) else json.dumps(value) for key, value in r.items()} for r in plain]
    pq.write_table(pa.Table.from_pylist(texts), tmp_path / "table.parquet", row_group_size=4)
    write_json(tmp_path / "parts" / "a.json", data[:7])
    write_json(tmp_path / "parts" / "b" / "c.json", data[7:])
    runs = []
    for name in ("array.json", "lines.jsonl", "table.parquet", "parts"):
        run = open_run(str(tmp_path / f"run-{name}"))
        summary = bring(run, with_images(profile, root=str(tmp_path)), str(tmp_path / name))
        assert (summary.samples, summary.images, summary.views) == (19, 10, 28)
        runs.append(run)
    assert all(the_same(runs[0], other) for other in runs[1:])
    for view in rows(runs[0], "views"):
        assert view["given_caption"] == ("a saw" if view["task"] == "category_classification" else None)
        assert view["view_id"] == content_id(view["image_id"], view["caption_prompt"], view["quality_prompt"])
        for start, end in view["caption_fields"]:
            assert view["caption_prompt"][start:end].startswith(("title", "p"))
    for table in ("images", "views"):
        for path in runs[0].files(table):
            ids = runs[0].read_file(path, ["image_id"])["image_id"].to_pylist()
            assert {one[:1] for one in ids} == {Run.partition(path)}


def test_only_what_is_missing_is_fetched(tmp_path: Path, profile: Profile, site: Site) -> None:
    def busy(handler: Any) -> None:
        handler.answer(200, png(50)) if site.count("/busy.png") > 2 else handler.answer(503)

    for n in range(6):
        site.pages[f"/{n}.png"] = png(n)
    site.pages["/busy.png"] = busy
    names = [site.url(f"/{n}.png") for n in range(4)] + [site.url("/gone.png"), site.url("/busy.png")]
    run = open_run(str(tmp_path / "run"))
    first = write_json(tmp_path / "first.json", [category(f"t{n}", name) for n, name in enumerate(names * 2)])
    summary = bring(run, profile, first)
    assert (summary.samples, summary.images, summary.fetched, summary.lost_references) == (12, 4, 6, 4)
    assert summary.retryable_rejects == 2
    assert site.count("/0.png") == 1
    assert site.count("/gone.png") == 1
    kept = {r["source"]: r for r in rows(run, "rejects")}
    assert kept[site.url("/gone.png")]["reason"].startswith("HTTP 404")
    assert not kept[site.url("/gone.png")]["retryable"]
    assert kept[site.url("/busy.png")]["retryable"]

    # What may pass is tried again, and nothing else.
    again = bring(run, profile, first)
    assert (again.fetched, again.images, again.lost_references) == (1, 5, 2)
    assert site.count("/gone.png") == 1

    # Other sources replace the first: references of both are not fetched again, images of neither are deleted.
    second = write_json(tmp_path / "second.json", [category(f"s{n}", site.url(f"/{n}.png")) for n in (2, 3, 4, 5)])
    summary = bring(run, profile, second)
    assert (summary.samples, summary.images, summary.fetched, summary.parsed_rows) == (4, 4, 2, 4)
    assert {image["image_id"] for image in rows(run, "images")} == {content_id(png(n)) for n in (2, 3, 4, 5)}
    fresh = open_run(str(tmp_path / "fresh"))
    bring(fresh, profile, second)
    assert the_same(run, fresh)

    # Two sources add up.
    both = bring(run, profile, first, second)
    assert (both.files, both.samples) == (2, 16)

    # A setting that a reject depends on asks again; one that an image depends on decodes again.
    seen = site.count("/gone.png")
    smaller = bring(run, with_images(profile, max_side=20), second)
    assert (smaller.fetched, smaller.parsed_rows, smaller.images) == (4, 0, 4)
    assert max(image["width"] for image in rows(run, "images")) == 20
    assert site.count("/gone.png") == seen


def test_images_inside_of_rows(tmp_path: Path, profile: Profile) -> None:
    uri = "data:image/png;base64," + base64.b64encode(png(3)).decode()
    pictures: list[Any] = [[{"bytes": png(1), "path": None}], [{"bytes": None, "path": "a.png"}], [{"bytes": b"no"}]]
    table = pa.Table.from_pylist([{**category(f"t{n}", None), "images": one} for n, one in enumerate(pictures)])
    pq.write_table(table, tmp_path / "rows.parquet")
    binary = {"bytes": [png(2)], **{key: [value] for key, value in category("t4", None).items() if key != "images"}}
    pq.write_table(pa.table({**binary, "image": binary.pop("bytes")}), tmp_path / "one.parquet")
    (tmp_path / "a.png").write_bytes(png(4))
    lines = write_json(tmp_path / "uri.json", [category("t5", uri), category("t6", uri[:-40])])
    sources = [str(tmp_path / "rows.parquet"), str(tmp_path / "one.parquet"), lines]
    run = open_run(str(tmp_path / "run"))
    summary = bring(run, profile, *sources)
    assert {image["image_id"] for image in rows(run, "images")} == {content_id(png(n)) for n in (1, 2, 3, 4)}
    lost = {r["source"]: r["reason"].split(":")[0] for r in rows(run, "rejects")}
    assert lost == {
        f"{tmp_path}/rows.parquet:3, image 1 (2 bytes)": "not an image",
        f"{uri[:60]}… ({len(uri) - 40:,} characters)": "truncated or damaged image",
    }
    assert summary.fetched == 1

    # Bytes that are gone from the run are read again, from the files that hold them and no others.
    run.delete(run.files("images", content_id(png(1))[0]))
    again = bring(run, profile, *sources)
    assert again.images == 4
    assert again.parsed_rows >= 3
    assert bring(run, profile, *sources).parsed_rows == 0


def test_a_run_that_was_stopped_is_continued(tmp_path: Path, profile: Profile, site: Site) -> None:
    for n in range(8):
        site.pages[f"/{n}.png"] = png(n)
    source = write_json(tmp_path / "rows.json", [category(f"t{n}", site.url(f"/{n}.png")) for n in range(8)])
    run = open_run(str(tmp_path / "run"))

    with stopped_before_tables():
        bring(run, profile, source)
    assert not run.files("samples")
    summary = bring(run, profile, source)
    assert (summary.parsed_rows, summary.fetched, summary.images) == (0, 0, 8)
    assert all(site.count(f"/{n}.png") == 1 for n in range(8))

    # A table that lost a file, or has one too many, is mended without fetching.
    run.delete(run.files("samples")[:1])
    run.write("views", "stray", SCHEMAS["views"].empty_table())
    summary = bring(run, profile, source)
    assert (summary.fetched, summary.samples) == (0, 8)
    assert len(rows(run, "samples")) == 8
    assert not any("stray" in path for path in run.files("views"))

    # Other partitions hold the same rows.
    finer = profile.model_copy(update={"storage": profile.storage.model_copy(update={"partition_digits": 2})})
    before = {table: sorted(map(str, rows(run, table))) for table in TABLES}
    assert bring(run, finer, source).fetched == 0
    assert {table: sorted(map(str, rows(run, table))) for table in TABLES} == before
    assert all(len(Run.partition(path)) == 2 for table in TABLES for path in run.files(table))
    assert bring(run, profile, source).fetched == 0
    assert {table: sorted(map(str, rows(run, table))) for table in TABLES} == before


def test_a_changed_prompt_changes_views_and_fetches_nothing(tmp_path: Path, profile: Profile) -> None:
    (tmp_path / "a.png").write_bytes(encoded(picture(size=(900, 300)), "JPEG"))
    source = write_json(
        tmp_path / "ood.json",
        [{**category("t", "a.png", split=""), "job": "CC", "task": None}, relation("a", "b", ["a.png", "a.png"])],
    )
    keys = profile.ingest.keys.model_copy(update={"task": "job"})
    profile = profile.model_copy(update={"ingest": profile.ingest.model_copy(update={"keys": keys})})
    run = open_run(str(tmp_path / "run"))
    bring(run, profile, source)
    # The file's name speaks of the split that the first row does not name.
    assert {sample["split"] for sample in rows(run, "samples")} == {"ood", "train"}
    (image,) = rows(run, "images")
    assert (image["width"], image["height"]) == opened(image["image"]).size == (500, 167)

    before = {view["view_id"]: view for view in rows(run, "views")}
    task = TASKS["category_classification"]
    changed = dataclasses.replace(task, caption_template="What is {{title}}?")
    summary = bring(run, profile, source, tasks={**TASKS, task.name: changed})
    after = {view["view_id"]: view for view in rows(run, "views")}
    assert summary.fetched == 0
    assert len(before.keys() & after.keys()) == 2
    (new,) = (after[view_id] for view_id in after.keys() - before.keys())
    assert new["caption_prompt"] == "What is t?"

    # A file that changed is another image.
    (tmp_path / "a.png").write_bytes(png(7))
    assert bring(run, profile, source).fetched == 1
    assert [image["image_id"] for image in rows(run, "images")] == [content_id(png(7))]


def test_sources_without_a_readable_row_give_empty_tables(tmp_path: Path, profile: Profile) -> None:
    (tmp_path / "page.json").write_text("<html>not found</html>")
    run = open_run(str(tmp_path / "run"))
    summary = bring(run, profile, str(tmp_path / "page.json"))
    assert (summary.rows, summary.samples, summary.rejects) == (1, 0, {"sample": 1, "image": 0})
    for table in TABLES:
        assert run.files(table)
        assert run.read(table).num_rows == (1 if table == "rejects" else 0)
    with pytest.raises(SourceError):
        bring(run, profile, str(tmp_path / "nowhere.json"))


def test_jobs_one_after_the_other_replace_what_they_change(tmp_path: Path, profile: Profile) -> None:
    for n in range(6):
        (tmp_path / f"{n}.png").write_bytes(png(n))
    first = write_json(tmp_path / "first.json", [category(f"t{n}", f"{n}.png") for n in range(6)])
    second = write_json(tmp_path / "second.json", [category(f"t{n}", f"{n}.png") for n in (0, 1, 2)])
    run = open_run(str(tmp_path / "run"))

    def in_epoch(epoch: int, *sources: str) -> IngestSummary:
        return bring(dataclasses.replace(run, fence=Fence(epoch, {})), profile, *sources)

    in_epoch(1, first)
    before = state(run)
    assert before
    assert all(path.endswith("-e00000001.parquet") for path in before)
    again = in_epoch(2, first)
    assert (again.parsed_rows, again.fetched, again.written_files) == (0, 0, 0)
    assert state(run) == before
    # A table that lost a file is rewritten; what is still valid is kept.
    run.delete(run.files("samples")[:1])
    in_epoch(3, first)
    changed = {path.removeprefix(run.root) for path in set(before) ^ set(state(run)) if "/rejects/" not in path}
    (stem,) = {run.stem(path) for path in changed}
    assert changed == {f"/samples/{stem}-e{epoch:08d}.parquet" for epoch in (1, 3)}
    assert in_epoch(4, second).samples == 3
    fresh = open_run(str(tmp_path / "fresh"))
    bring(fresh, profile, second)
    assert the_same(run, fresh)
    for table in (*TABLES, "ingest/fetched"):
        stems = [run.stem(path) for path in run.files(table)]
        assert sorted(stems) == sorted(fresh.stem(path) for path in fresh.files(table)), table
