"""Known URLs are asked for again as `images.revisit` says, against a real server."""

from __future__ import annotations

import logging
import os
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caslie_ray.dataset._downloading import NO_VALIDATORS, Validators
from caslie_ray.dataset._fetcher import FetchBlock, Fetched, Fetcher, SurveyCounts
from caslie_ray.dataset._fetching import read_images
from caslie_ray.dataset._headers import request_headers
from caslie_ray.hashing import content_id
from caslie_ray.profiles import ImageSettings, Profile
from caslie_ray.storage.run import Run, open_run
from tests.dataset.test_buckets import in_buckets
from tests.dataset.test_ingest import bring, rows, state, the_same, with_images
from tests.dataset.world import Site, category, png, relation, stopped_before_tables, write_json

pytestmark = pytest.mark.usefixtures("ray_cluster")

DAY = 86_400


class Shop:
    """Pictures that change, on a server that knows conditions; `asked` has the conditions of each request."""

    def __init__(self, site: Site, kind: str, count: int = 4) -> None:
        self.site = site
        self.kind = kind
        self.seeds = {f"/{n}.png": n for n in range(count)}
        self.changed_s = dict.fromkeys(self.seeds, time.time() - DAY)
        self.status: dict[str, int] = {}
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.answers: list[int] = []
        for path in self.seeds:
            site.pages[path] = self.answer

    def answer(self, handler: Any) -> None:
        path = handler.path
        known = {name: handler.headers.get(name) for name in ("If-None-Match", "If-Modified-Since")}
        self.asked.append((path, *known.values()))
        headers = {}
        if self.kind in ("etag", "both"):
            headers["ETag"] = f'"{self.seeds[path]}"'
        if self.kind in ("last_modified", "both"):
            headers["Last-Modified"] = formatdate(self.changed_s[path], usegmt=True)
        current = known["If-None-Match"] == headers.get("ETag", "") or (
            not known["If-None-Match"] and known["If-Modified-Since"] == headers.get("Last-Modified", "")
        )
        status = self.status.get(path, 304 if current else 200)
        self.answers.append(status)
        handler.answer(status, png(self.seeds[path]) if status == 200 else b"", **headers)

    def change(self, path: str, seed: int) -> None:
        """Put another picture under the same URL."""
        self.seeds[path] = seed
        self.changed_s[path] += 60

    def since(self) -> list[int]:
        """The answers since the last call, sorted."""
        found, self.answers = sorted(self.answers), []
        self.asked = []
        return found

    def source(self, folder: Path) -> str:
        """A source that names each picture twice."""
        names = [self.site.url(path) for path in self.seeds]
        return write_json(folder / "rows.json", [category(f"t{n}", name) for n, name in enumerate(names * 2)])


def settings(profile: Profile, revisit: str, **changes: Any) -> Profile:
    return with_images(profile, revisit=revisit, retries=0, **changes)


def images(run: Run) -> set[str]:
    return {row["image_id"] for row in rows(run, "images")}


def ids(*seeds: int) -> set[str]:
    return {content_id(png(seed)) for seed in seeds}


def ledger(run: Run) -> dict[str, dict[str, Any]]:
    paths = Path(run.path("ingest/fetched")).rglob("*.parquet")
    return {row["key"]: row for path in paths for row in pq.read_table(path).to_pylist()}


def without_validators(run: Run) -> None:
    """Leave the ledger as versions before validators wrote it."""
    for path in Path(run.path("ingest/fetched")).rglob("*.parquet"):
        pq.write_table(pq.read_table(path).drop_columns(["etag", "last_modified", "version"]), path)


def kept(caplog: pytest.LogCaptureFixture) -> list[str]:
    """How many results each warning says were kept."""
    found = [record.getMessage() for record in caplog.records]
    return [text.split(" could")[0] for text in found if "images.revisit" in text]


@pytest.mark.parametrize("kind", ["etag", "last_modified", "none"])
def test_a_changed_picture_replaces_the_earlier_one(tmp_path: Path, profile: Profile, site: Site, kind: str) -> None:
    shop, profile = Shop(site, kind), settings(profile, "changed")
    source, run = shop.source(tmp_path), open_run(str(tmp_path / "run"))
    assert bring(run, profile, source).fetched == 4
    assert shop.since() == [200] * 4

    # Nothing changed: no body is sent where the server has validators, and no table file is written.
    before, known = state(run), ledger(run)
    again = bring(run, profile, source)
    assert shop.since() == ([200] if kind == "none" else [304]) * 4
    assert (again.fetched, again.written_files) == (4 if kind == "none" else 0, 0)
    assert state(run) == before
    assert ledger(run) == known

    shop.change("/2.png", 12)
    summary = bring(run, profile, source)
    assert shop.since() == ([200] * 4 if kind == "none" else [200, 304, 304, 304])
    assert (summary.images, summary.lost_references) == (4, 0)
    assert summary.written_files > 0
    assert images(run) == ids(0, 1, 12, 3)
    fresh = open_run(str(tmp_path / "fresh"))
    bring(fresh, profile, source)
    assert the_same(run, fresh)


def test_several_buckets_are_revisited_as_one_is(
    tmp_path: Path, profile: Profile, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs = {digits: open_run(str(tmp_path / f"run-{digits}")) for digits in (0, 1)}
    profile = settings(profile, "changed")
    for digits, run in runs.items():
        in_buckets(monkeypatch, digits)
        shop = Shop(site, "etag")
        source = shop.source(tmp_path)
        bring(run, profile, source)
        without_validators(run)
        before = state(run)
        assert bring(run, profile, source).written_files == 0
        assert shop.since() == [200] * 8
        assert state(run) == before
        shop.change("/0.png", 10)
        shop.status |= {"/1.png": 404, "/2.png": 500}
        caplog.clear()
        with caplog.at_level(logging.WARNING, "caslie_ray.dataset"):
            summary = bring(run, profile, source)
        assert shop.since() == [200, 304, 404, 500]
        assert (summary.fetched, summary.images, summary.lost_references) == (3, 3, 2)
        assert kept(caplog) == ["1 URL"]
        assert images(run) == ids(10, 2, 3)
    assert the_same(runs[0], runs[1])
    one, several = ({key: row | {"block": None} for key, row in ledger(run).items()} for run in runs.values())
    assert one == several


@pytest.mark.parametrize(
    ("kind", "names"), [("etag", [True, False]), ("last_modified", [False, True]), ("both", [True, False])]
)
def test_a_request_names_the_etag_or_else_the_date(site: Site, kind: str, names: list[bool]) -> None:
    shop, limits = Shop(site, kind, 1), ImageSettings(allow_private=True)
    locator = f"url:{site.url('/0.png')}"
    (first,) = read_images([locator], limits, request_headers(limits, {}))
    (second,) = read_images([locator], limits, request_headers(limits, {}), known={locator: first.validators})
    assert (second.not_modified, second.image, second.reason) == (True, None, None)
    before, after = shop.asked
    assert before == ("/0.png", None, None)
    assert [condition is not None for condition in after[1:]] == names


def test_never_requests_nothing_and_always_downloads_all(tmp_path: Path, profile: Profile, site: Site) -> None:
    shop = Shop(site, "both")
    source, run = shop.source(tmp_path), open_run(str(tmp_path / "run"))
    bring(run, settings(profile, "never"), source)
    shop.since()
    shop.change("/0.png", 10)
    assert bring(run, settings(profile, "never"), source).fetched == 0
    assert shop.asked == []
    assert images(run) == ids(0, 1, 2, 3)

    assert bring(run, settings(profile, "always"), source).fetched == 4
    assert {condition for _, *conditions in shop.asked for condition in conditions} == {None}
    assert shop.since() == [200] * 4
    assert images(run) == ids(10, 1, 2, 3)
    before = state(run)
    assert bring(run, settings(profile, "always"), source).written_files == 0
    assert state(run) == before


def test_a_picture_that_is_gone_becomes_a_reject_until_it_is_back(tmp_path: Path, profile: Profile, site: Site) -> None:
    shop, profile = Shop(site, "etag"), settings(profile, "changed")
    source, run = shop.source(tmp_path), open_run(str(tmp_path / "run"))
    bring(run, profile, source)
    shop.status["/1.png"] = 404
    summary = bring(run, profile, source)
    assert (summary.images, summary.lost_references, summary.retryable_rejects) == (3, 2, 0)
    assert images(run) == ids(0, 2, 3)
    assert {row["reason"].split(":")[0] for row in rows(run, "rejects")} == {"HTTP 404"}
    assert bring(run, profile, source).written_files == 0
    shop.status.clear()
    assert bring(run, profile, source).images == 4
    assert images(run) == ids(0, 1, 2, 3)


def test_a_server_that_fails_for_a_while_costs_no_image(
    tmp_path: Path, profile: Profile, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    shop, profile = Shop(site, "etag"), settings(profile, "changed")
    source, run = shop.source(tmp_path), open_run(str(tmp_path / "run"))
    bring(run, profile, source)
    before, known = state(run), ledger(run)
    shop.status |= {"/1.png": 500, "/2.png": 503}
    with caplog.at_level(logging.WARNING, "caslie_ray.dataset"):
        summary = bring(run, profile, source)
    assert (summary.images, summary.lost_references, summary.written_files) == (4, 0, 0)
    assert state(run) == before
    assert ledger(run) == known
    assert kept(caplog) == ["2 URLs"]
    shop.since()
    shop.status.clear()
    shop.change("/1.png", 11)
    bring(run, profile, source)
    assert shop.since() == [200, 304, 304, 304]
    assert images(run) == ids(0, 11, 2, 3)


def test_a_reject_with_a_validator_is_not_downloaded_again(tmp_path: Path, profile: Profile, site: Site) -> None:
    shop, profile = Shop(site, "etag", 1), settings(profile, "changed")
    source, run = shop.source(tmp_path), open_run(str(tmp_path / "run"))
    page = {"body": b"<html>soon</html>", "tag": '"page"'}

    def answer(handler: Any) -> None:
        unchanged = handler.headers.get("If-None-Match") == page["tag"]
        shop.answers.append(304 if unchanged else 200)
        handler.answer(304, ETag=page["tag"]) if unchanged else handler.answer(200, page["body"], ETag=page["tag"])

    site.pages["/0.png"] = answer
    assert bring(run, profile, source).images == 0
    assert bring(run, profile, source).written_files == 0
    assert shop.since() == [200, 304]
    assert {row["reason"].split(":")[0] for row in rows(run, "rejects")} == {"not an image"}
    page |= {"body": png(0), "tag": '"picture"'}
    assert bring(run, profile, source).images == 1


def test_the_validators_are_those_of_the_answer_after_redirects(tmp_path: Path, profile: Profile, site: Site) -> None:
    shop, profile = Shop(site, "etag", 1), settings(profile, "changed")
    site.pages["/moved.png"] = lambda h: h.answer(302, Location="/0.png", ETag='"of the redirect"')
    source = write_json(tmp_path / "rows.json", [category("t", site.url("/moved.png"))])
    run = open_run(str(tmp_path / "run"))
    bring(run, profile, source)
    assert [row["etag"] for row in ledger(run).values()] == ['"0"']
    bring(run, profile, source)
    assert shop.since() == [200, 304]


@pytest.mark.parametrize(
    ("given", "kept"),
    [('"a"', '"a"'), ('W/"a"', 'W/"a"'), ("a" * 1000, "a" * 1000), ("a" * 1001, None), ("*", None), ("é", None)],
)
def test_a_validator_that_cannot_be_sent_back_is_left_out(site: Site, given: str, kept: str | None) -> None:
    site.pages["/a.png"] = lambda h: h.answer(200, png(), ETag=given, Last_Modified=given)
    limits = ImageSettings(allow_private=True, retries=0)
    (outcome,) = read_images([f"url:{site.url('/a.png')}"], limits, request_headers(limits, {}))
    assert outcome.image is not None
    assert outcome.validators == Validators(kept, kept)


@pytest.mark.parametrize(("status", "gone"), [(403, False), (404, True), (410, True), (503, False)])
def test_an_error_has_no_validators(site: Site, status: int, gone: bool) -> None:
    site.pages["/a.png"] = lambda h: h.answer(status, ETag='"a"')
    limits = ImageSettings(allow_private=True, retries=0)
    (outcome,) = read_images([f"url:{site.url('/a.png')}"], limits, request_headers(limits, {}))
    assert (outcome.gone, outcome.validators) == (gone, NO_VALIDATORS)


def test_a_ledger_without_validators_is_read(tmp_path: Path, profile: Profile, site: Site) -> None:
    shop = Shop(site, "etag")
    source, run = shop.source(tmp_path), open_run(str(tmp_path / "run"))
    bring(run, settings(profile, "never"), source)
    shop.since()
    without_validators(run)
    before = state(run)
    assert bring(run, settings(profile, "never"), source).fetched == 0
    assert shop.since() == []
    # The first revisit downloads all, the second one knows their validators.
    assert bring(run, settings(profile, "changed"), source).written_files == 0
    assert bring(run, settings(profile, "changed"), source).written_files == 0
    assert shop.since() == [200] * 4 + [304] * 4
    assert state(run) == before


@pytest.mark.parametrize("digits", [0, 1])
def test_a_url_is_asked_for_again_once_per_job(
    tmp_path: Path, profile: Profile, site: Site, monkeypatch: pytest.MonkeyPatch, digits: int
) -> None:
    """Though it repeats its steps: a table is damaged, an image of a row is gone, and one of a URL is in no file."""
    in_buckets(monkeypatch, digits)
    shop, profile = Shop(site, "etag"), settings(profile, "changed")
    inside = {**category("inside", None), "images": [{"bytes": png(40), "path": None}]}
    pq.write_table(pa.Table.from_pylist([inside]), tmp_path / "inside.parquet")
    sources, run = [shop.source(tmp_path), str(tmp_path / "inside.parquet")], open_run(str(tmp_path / "run"))
    bring(run, profile, *sources)
    before = {table: sorted(map(str, rows(run, table))) for table in ("images", "views", "samples")}
    shop.since()

    Path(run.files("samples")[0]).write_bytes(b"PAR1 no more")
    for path in Path(run.path("ingest/fetched")).rglob("*.parquet"):
        table = pq.read_table(path)
        of_url = [key.startswith("url:") for key in table["key"].to_pylist()]
        pq.write_table(table.filter(pa.array(of_url, pa.bool_())), path)
    partition = content_id(png(0))[0]
    run.delete(run.files("images", partition))
    assert bring(run, profile, *sources).parsed_rows >= 1
    # What is in no file is downloaded, after the server has answered that it did not change.
    lost = sum(content_id(png(seed))[0] == partition for seed in shop.seeds.values())
    assert shop.since() == [200] * lost + [304] * 4
    assert {table: sorted(map(str, rows(run, table))) for table in before} == before


def test_a_job_that_was_stopped_keeps_the_images_of_both_answers(tmp_path: Path, profile: Profile, site: Site) -> None:
    shop, profile = Shop(site, "etag"), settings(profile, "changed")
    source, run = shop.source(tmp_path), open_run(str(tmp_path / "run"))
    with stopped_before_tables():
        bring(run, profile, source)
    shop.change("/1.png", 11)
    with stopped_before_tables():
        bring(run, profile, source)
    shop.change("/3.png", 13)
    shop.since()
    bring(run, settings(profile, "never"), source)
    assert images(run) == ids(0, 11, 2, 3)
    assert shop.since() == []
    bring(run, profile, source)
    assert images(run) == ids(0, 11, 2, 13)
    assert shop.since() == [200, 304, 304, 304]


def test_an_older_answer_never_counts_again(
    tmp_path: Path, profile: Profile, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that was stopped before the ledger was reduced leaves both answers in it."""
    shop, profile = Shop(site, "etag"), settings(profile, "changed")
    source, run = shop.source(tmp_path), open_run(str(tmp_path / "run"))
    bring(run, profile, source)
    shop.status["/0.png"] = 404
    shop.change("/1.png", 11)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("caslie_ray.dataset._deduplication.Joiner", stop)
        with pytest.raises(KeyboardInterrupt):
            bring(run, profile, source)
    assert len(run.files("ingest/fetched")) > 1
    shop.since()
    summary = bring(run, settings(profile, "never"), source)
    assert shop.since() == []
    assert images(run) == ids(11, 2, 3)
    assert summary.lost_references == 2


def test_a_host_with_credentials_may_refuse_without_loss(tmp_path: Path, profile: Profile, site: Site) -> None:
    shop = Shop(site, "etag")
    profile = settings(profile, "changed", headers={"Authorization": "Basic eDp5"}, credential_hosts=["127.0.0.1"])
    source, run = shop.source(tmp_path), open_run(str(tmp_path / "run"))
    bring(run, profile, source)
    shop.status |= {"/0.png": 401, "/1.png": 404}
    assert bring(run, profile, source).retryable_rejects == 2
    assert images(run) == ids(0, 2, 3)
    shop.status.clear()
    assert bring(run, profile, source).images == 4


def test_a_changed_picture_changes_each_position_that_has_it(tmp_path: Path, profile: Profile, site: Site) -> None:
    shop, profile = Shop(site, "both", 2), settings(profile, "changed")
    first, second = map(site.url, shop.seeds)
    source = write_json(tmp_path / "rows.json", [relation("a", "b", [first, second]), category("c", first)])
    run = open_run(str(tmp_path / "run"))
    bring(run, profile, source)
    shop.change("/0.png", 1)
    summary = bring(run, profile, source)
    assert (summary.images, summary.references, summary.lost_references) == (1, 3, 0)
    assert {view["image_id"] for view in rows(run, "views")} == ids(1)


@pytest.mark.chaos
def test_a_picture_that_ends_its_worker_keeps_the_earlier_ones_of_its_block(
    tmp_path: Path, profile: Profile, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Deadly(Fetcher):
        def __call__(self, part: FetchBlock | SurveyCounts) -> Fetched | SurveyCounts:
            if isinstance(part, FetchBlock) and any(item.locator.endswith("/3.png") for item in part.items):
                os._exit(1)
            return super().__call__(part)

    shop, profile = Shop(site, "etag", 20), settings(profile, "changed")
    source, run = shop.source(tmp_path), open_run(str(tmp_path / "run"))
    bring(run, profile, source)
    before = state(run)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "caslie_ray.dataset"):
        patch.setattr("caslie_ray.dataset._deduplication.Fetcher", Deadly)
        summary = bring(run, profile, source)
    assert (summary.images, summary.lost_references) == (20, 0)
    assert state(run) == before
    (count,) = kept(caplog)
    assert 1 <= int(count.split(" ")[0]) < 20
