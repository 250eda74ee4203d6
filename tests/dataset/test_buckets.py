"""References in several buckets give the tables that one bucket gives, and the ledger follows their number."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caslie_ray.dataset import _shuffle, plan_ingest
from caslie_ray.dataset._references_ledger import Ledger, bucket_folder, reference_hash
from caslie_ray.dataset._shuffle import bucket_names, groups_of
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run, open_run
from tests.dataset.test_ingest import TABLES, bring, rows, state, the_same
from tests.dataset.world import Site, category, png, relation, stopped_before_tables, write_json


def in_buckets(patch: pytest.MonkeyPatch, digits: int) -> None:
    """Divide references by so many digits, however few they are."""
    patch.setattr(_shuffle, "_ONE_BUCKET", 0 if digits else 20_000)
    patch.setattr(_shuffle, "_LARGEST_BUCKET", 10 if digits == 2 else 1_000_000)


def everything(folder: Path, site: Site) -> list[str]:
    """Sources with references of every kind, repeated within and across files."""
    for n in range(12):
        site.pages[f"/{n}.png"] = png(n)
        (folder / f"{n}.png").write_bytes(png(n + 6))
    uri = "data:image/png;base64," + base64.b64encode(png(30)).decode()
    names = [site.url(f"/{n}.png") for n in range(12)] + [f"{n}.png" for n in range(13)]
    names += [site.url("/gone.png"), "/etc/passwd", "ftp://x/a.png", "", uri, uri, uri[:-40]]
    first = [category(f"t{n}", name) for n, name in enumerate(names * 2)]
    second = [relation(f"a{n}", f"b{n}", [names[n], names[-n]]) for n in range(1, len(names))]
    second += [category("t1", names[1], "test"), category("", names[0]), {"task": "nonsense"}]
    inside = [{**category(f"i{n}", None), "images": [{"bytes": png(40 + n % 7), "path": None}]} for n in range(20)]
    pq.write_table(pa.Table.from_pylist(inside), folder / "inside.parquet")
    return [write_json(folder / "first.json", first), write_json(folder / "second.json", second),
            str(folder / "inside.parquet")]  # fmt: skip


def small_chunks(profile: Profile) -> Profile:
    return profile.model_copy(update={"ingest": profile.ingest.model_copy(update={"chunk_rows": 20})})


def ledger(run: Run) -> set[str]:
    return {row["key"] for path in Path(run.path("ingest/fetched")).rglob("*.parquet")
            for row in pq.read_table(path).to_pylist()}  # fmt: skip


@pytest.mark.usefixtures("ray_cluster")
def test_several_buckets_give_the_same_tables_as_one(
    tmp_path: Path, profile: Profile, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = small_chunks(profile)
    sources = everything(tmp_path, site)
    runs = {digits: open_run(str(tmp_path / f"run-{digits}")) for digits in (0, 1)}
    summaries: dict[int, dict[str, Any]] = {}
    for digits, run in runs.items():
        in_buckets(monkeypatch, digits)
        asked = len(site.seen)
        summaries[digits] = bring(run, profile, *sources).as_dict() | {"seconds": 0}
        assert len(site.seen) - asked == 13
        again = bring(run, profile, *sources)
        assert (again.parsed_rows, again.fetched, again.written_files) == (0, 0, 0)
        assert plan_ingest(run, sources, profile).lines()[-1] == "nothing to read or fetch"
    assert summaries[0] == summaries[1]
    assert summaries[0]["images"] == 26
    assert the_same(runs[0], runs[1])
    assert ledger(runs[0]) == ledger(runs[1])
    for path in Path(runs[1].path("ingest/fetched")).glob("*/*.parquet"):
        (part,) = {reference_hash(key.split("|")[0])[:1] for key in pq.read_table(path)["key"].to_pylist()} or {
            path.parent.name
        }
        assert path.parent.name == part

    # Another number of buckets moves the ledger, and fetches nothing.
    before = state(runs[0])
    for digits in (2, 1, 0):
        in_buckets(monkeypatch, digits)
        assert bring(runs[0], profile, *sources).fetched == 0
        assert ledger(runs[0]) == ledger(runs[1])
        assert bool(list(Path(runs[0].path("ingest/fetched")).glob("*.parquet"))) == (digits == 0)
    assert state(runs[0]) == before


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(("step", "digits"), [("Shuffler", 1), ("Fetcher", 1), ("Joiner", 0), ("build_tables", 1)])
def test_a_job_that_is_stopped_at_any_step_is_continued(
    tmp_path: Path, profile: Profile, site: Site, monkeypatch: pytest.MonkeyPatch, step: str, digits: int
) -> None:
    in_buckets(monkeypatch, digits)
    for n in range(8):
        site.pages[f"/{n}.png"] = png(n)
    data = [category(f"t{n}", site.url(f"/{n}.png")) for n in range(8)]
    inside = "data:image/png;base64," + base64.b64encode(png(30)).decode()
    source = write_json(tmp_path / "rows.json", [*data, category("inside", inside)])
    run = open_run(str(tmp_path / "run"))

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        module = "_ingest" if step == "build_tables" else "_deduplication"
        patch.setattr(f"caslie_ray.dataset.{module}.{step}", stop)
        with pytest.raises(KeyboardInterrupt):
            bring(run, profile, source)
    summary = bring(run, profile, source)
    fetched = 0 if step in ("Joiner", "build_tables") else 8
    assert (summary.parsed_rows, summary.fetched, summary.images) == (0, fetched, 9)
    assert all(site.count(f"/{n}.png") == 1 for n in range(8))


@pytest.mark.usefixtures("ray_cluster")
def test_images_that_are_gone_are_fetched_again_in_several_buckets(
    tmp_path: Path, profile: Profile, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_buckets(monkeypatch, 1)
    sources = everything(tmp_path, site)
    run = open_run(str(tmp_path / "run"))
    bring(run, profile, *sources)
    before = {table: sorted(map(str, rows(run, table))) for table in TABLES}
    run.delete(run.files("images")[:4])
    assert bring(run, profile, *sources).fetched > 0
    assert {table: sorted(map(str, rows(run, table))) for table in TABLES} == before
    assert bring(run, profile, *sources).written_files == 0


@pytest.mark.usefixtures("ray_cluster")
def test_a_ledger_of_an_earlier_version_is_read(tmp_path: Path, profile: Profile, site: Site) -> None:
    """Its files lack the column `block`, and fetched images lie in the file of the same name."""
    for n in range(4):
        site.pages[f"/{n}.png"] = png(n)
    source = write_json(tmp_path / "rows.json", [category(f"t{n}", site.url(f"/{n}.png")) for n in range(4)])
    run = open_run(str(tmp_path / "run"))
    with stopped_before_tables():
        bring(run, profile, source)
    table = pq.read_table(run.files("ingest/fetched")[0])
    name = table["block"].to_pylist()[0]
    run.delete(run.files("ingest/fetched"))
    pq.write_table(table.drop_columns("block"), run.path("ingest/fetched", name))
    others = [path for path in run.files("ingest/pending") if not path.endswith(name)]
    assert not others or len(set(table["block"].to_pylist())) > 1
    summary = bring(run, profile, source)
    assert summary.images == 4
    pq.write_table(pq.read_table(run.files("ingest/fetched")[0]).drop_columns("block"), run.files("ingest/fetched")[0])
    assert bring(run, profile, source).fetched == 0


def test_the_number_of_buckets_follows_from_the_references() -> None:
    assert bucket_names(0, 2) == bucket_names(20_000, 64) == [""]
    assert len(bucket_names(20_001, 2)) == len(bucket_names(16_000_000, 16)) == 16
    assert len(bucket_names(20_001, 64)) == len(bucket_names(16_000_001, 2)) == 256
    assert len(bucket_names(10**9, 2)) == 4096
    assert len(bucket_names(10**12, 2)) == 65_536


def test_groups_are_enough_for_all_tasks_and_not_too_many() -> None:
    files = [(0, str(n)) for n in range(30_000)]
    for count, rows_each, concurrency, expected in (
        (0, 500, 2, 0), (1, 500, 2, 1), (4, 500, 2, 4), (100, 500, 2, 10),
        (30_000, 500, 2, 1000), (30_000, 50_000, 2, 3000),
    ):  # fmt: skip
        groups = groups_of(files[:count], rows_each, concurrency)
        assert len(groups) == expected
        assert [one for group in groups for one in group.files] == files[:count]


def test_a_bucket_reads_only_its_own_ledger(tmp_path: Path, profile: Profile) -> None:
    run = open_run(str(tmp_path / "run"))
    Ledger(run, profile.images, "a").compact({})
    assert run.files(bucket_folder("a"))
    assert not run.files(bucket_folder(""))
    assert json.dumps(Ledger(run, profile.images, "a").result("url:http://x/")) == "null"


@pytest.mark.usefixtures("ray_cluster")
def test_the_driver_lists_each_folder_a_fixed_number_of_times(
    tmp_path: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many partitions there are."""
    in_buckets(monkeypatch, 1)
    (tmp_path / "a.png").write_bytes(png())
    source = write_json(tmp_path / "rows.json", [category(f"t{n}", "a.png") for n in range(30)])
    fine = profile.model_copy(update={"storage": profile.storage.model_copy(update={"partition_digits": 2})})
    run = open_run(str(tmp_path / "run"))
    listed: Counter[str] = Counter()
    listing = Run.listed

    def counted(self: Run, folder: str) -> Any:
        listed[folder.removeprefix(f"{run.root}/")] += 1
        return listing(self, folder)

    monkeypatch.setattr(Run, "listed", counted)
    bring(run, fine, source)
    assert listed
    assert max(listed.values()) <= 3, listed
