import json
from pathlib import Path
import pytest
from caslie_ray.storage.run import open_run
from tests.dataset.test_buckets import in_buckets
from tests.dataset.test_ingest import bring, state
from tests.dataset.test_revisit import Shop, settings, without_validators, ledger
pytestmark = pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("n", range(3))
def test_x(tmp_path, profile, site, monkeypatch, n):
    run = open_run(str(tmp_path/"run"))
    profile = settings(profile, "changed")
    in_buckets(monkeypatch, 1)
    shop = Shop(site, "etag")
    source = shop.source(tmp_path)
    s = bring(run, profile, source)
    a = json.loads(Path(run.path("ingest/tables.json")).read_text()); sa = state(run)
    pa_ = sorted(p.name for p in Path(run.path("ingest/parsed")).iterdir())
    if n: without_validators(run)
    s2 = bring(run, profile, source)
    b = json.loads(Path(run.path("ingest/tables.json")).read_text())
    pb_ = sorted(p.name for p in Path(run.path("ingest/parsed")).iterdir())
    print(pa_, pb_, s2.parsed_rows, s2.fetched, s2.written_files)
    print(a["key"], b["key"])
    print({k: (a["files"].get(k), b["files"].get(k)) for k in set(a["files"])|set(b["files"]) if a["files"].get(k)!=b["files"].get(k)})
    assert state(run) == sa
