"""The dashboard matches the exported metrics, and the metrics that a running job exports."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from urllib.request import urlopen

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from caslie_ray.miniature import WorldSize
from caslie_ray.monitoring.pool_stats import PoolStats
from caslie_ray.monitoring.prometheus import GAUGES, METRICS, Metrics, tag_value
from caslie_ray.storage.run import open_run
from tests import faulty
from tests.clusters import Submitted, nodes, until
from tests.worlds import draw, edit_views, voter

EXPORTED = {f"ray_{name}" if name in GAUGES else f"ray_{name}_total" for name in METRICS}
TAGS = {"run", "job_name", "model"}
OF_PROMQL = {"sum", "by", "rate", "increase", "and", "clamp_max", "avg_over_time", *TAGS}

SIZE = WorldSize(train=10, validation=0, ind=2, ood=2)
BLOCK = 8


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        resources.files("caslie_ray").joinpath("monitoring/grafana.json").read_text("utf-8")
    )
    return found


def targets(dashboard: dict[str, Any]) -> list[dict[str, str]]:
    return [target for panel in dashboard["panels"] for target in panel.get("targets", [])]


def words(expression: str) -> set[str]:
    """The names in a PromQL expression: of metrics, labels and functions."""
    return set(re.findall(r"[a-zA-Z_]\w*", re.sub(r'"[^"]*"|\[[^]]*\]', "", expression)))


def test_every_metric_is_shown_and_no_other(dashboard: dict[str, Any]) -> None:
    assert set().union(*(words(target["expr"]) for target in targets(dashboard))) - OF_PROMQL == EXPORTED


def test_counters_are_shown_by_their_rate_and_gauges_are_not(dashboard: dict[str, Any]) -> None:
    for target in targets(dashboard):
        for function, name in re.findall(r"\b(rate|increase|avg_over_time)\((\w+)", target["expr"]):
            assert name.endswith("_total") == (function != "avg_over_time"), target["expr"]


def test_legends_name_the_labels_that_are_grouped_by(dashboard: dict[str, Any]) -> None:
    for target in targets(dashboard):
        kept = {frozenset(labels.split(", ")) for labels in re.findall(r"\bby \(([^)]*)\)", target["expr"])}
        assert kept == {frozenset(re.findall(r"{{(\w+)}}", target["legendFormat"]))}, target


def test_the_variables_are_there_and_used(dashboard: dict[str, Any]) -> None:
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard["panels"]))) == set(variables)
    for name, label in (("run", "run"), ("job", "job_name")):
        query = variables[name]["query"]["query"]
        asked, told = re.fullmatch(r"label_values\((\w+)[^,]*, (\w+)\)", query).groups()  # type: ignore[union-attr]
        assert (asked in EXPORTED, told) == (True, label)
    assert {json.dumps(target["datasource"]) for target in targets(dashboard)} == {
        json.dumps({"type": "prometheus", "uid": "${datasource}"})
    }


def test_panels_say_what_they_are_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        at = panel["gridPos"]
        assert 0 <= at["x"] < at["x"] + at["w"] <= 24, panel["title"]
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["description"]
            assert panel["fieldConfig"]["defaults"]["unit"]
    for one, other in combinations(panels, 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = any(a[at] + a[size] <= b[at] or b[at] + b[size] <= a[at] for at, size in (("x", "w"), ("y", "h")))
        assert apart, (one["title"], other["title"])


NAMES = ["läufe/été 夏", "a\nb\t\0c\x7f", 'C:\\runs\\"x"', "100% {real}", "\udce4", "🧵" * 300, "x" * 100_000, "", " "]


@pytest.mark.parametrize("name", NAMES)
def test_any_text_becomes_a_tag_that_ray_takes(ray_cluster: None, name: str) -> None:
    told = Metrics(name, name)
    told.views(3, 2)
    told.done(1, 1, 1)
    told.model(PoolStats(name, ready=1, requests=3))


def test_a_tag_is_short_printable_ascii_and_distinguishes_texts() -> None:
    tags = [tag_value(name) for name in NAMES]
    assert all(0 < len(tag) <= 200 and tag.isascii() and tag.isprintable() for tag in tags)
    assert len({*tags, tag_value("x" * 100_001), tag_value("l%C3%A4ufe"), tag_value("läufe")}) == len(tags) + 3
    assert tag_value("s3://shop/run-1 (a)") == "s3://shop/run-1 (a)", "what Ray takes is left as it is"
    assert unquote(tags[0]) == NAMES[0]


class Scrape:
    """One scrape of the exported metrics."""

    def __init__(self, url: str) -> None:
        with urlopen(url, timeout=10) as answer:
            found = text_string_to_metric_families(answer.read().decode())
        self._families: list[Metric] = [family for family in found if family.name.startswith("ray_caslie_")]
        samples = [sample for family in self._families for sample in family.samples]
        self.values = {sample.name.removeprefix("ray_caslie_"): sample.value for sample in samples}
        self.labels = {sample.name.removeprefix("ray_caslie_"): dict(sample.labels) for sample in samples}
        assert len(samples) == len(self.values), "a metric has more than one series"

    @property
    def names(self) -> set[str]:
        return {f"ray_caslie_{name}" for name in self.values}

    @property
    def types(self) -> dict[str, str]:
        return {family.name.removeprefix("ray_"): family.type for family in self._families}


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_job_reports_its_progress_to_prometheus(tmp_path: Path) -> None:
    source = draw(tmp_path / "source", SIZE)
    run = open_run(str(tmp_path / "läufe" / "été 夏"))
    # Exported every second and dropped after two: a metric that is exported once would vanish during the job.
    with nodes(1, {"RAY_metrics_report_interval_ms": "1000"}) as cluster:

        def submit(job: str, *arguments: str) -> Submitted:
            return cluster.submit(job, "--run", run.uri, *arguments)

        def told(enough: Callable[[dict[str, float]], bool], what: str) -> Scrape:
            def look() -> Scrape | None:
                assert job.running, job.end()[1]
                seen = Scrape(cluster.metrics)
                # On a busy machine a gauge may be late once.
                return seen if seen.names >= EXPORTED and enough(seen.values) else None

            found: Scrape = until(look, 240, what)
            return found

        code, said = submit("ingest", "--source", str(source)).end()
        assert code == 0, said
        planned = sum(map(run.count_rows, run.files("views")))
        # Partitions are worked on in their order, two at once.
        last = run.read_file(max(run.files("views"), key=run.partition))["view_id"].to_pylist()[-1]
        assert edit_views(run, lambda row: poisoned(row) if row["view_id"] == last else None) == [last]

        settings = ["captions.source=dataset", f"storage.block_rows={BLOCK}", "faults.tries=1"]
        chosen = json.dumps([voter("llama-3b", engine="tests.faulty:slow")])
        job = submit("caption", "--set", f"lineup.voters={chosen}", *settings)
        early = told(
            lambda seen: min(seen["views_done_total"], seen["requests_total"], planned - seen["views_left"]) > 0,
            "the first views",
        )
        late = told(lambda seen: seen["views_done_total"] > 0.7 * planned, "most views")
        code, said = job.end()
        assert code == 0, said
        final = Scrape(cluster.metrics).values

    assert early.names == EXPORTED
    assert early.types == {name: "gauge" if name in GAUGES else "counter" for name in METRICS}
    for name, labels in early.labels.items():
        of_model = name.startswith(("replicas", "requests", "tokens", "busy"))
        assert unquote(labels["run"]) == run.label
        ours = {"run": tag_value(run.label), "job_name": "caption", **({"model": "llama-3b"} if of_model else {})}
        assert {tag: labels[tag] for tag in TAGS & set(labels)} == ours
    # By that the dashboard leaves out what earlier drivers have counted.
    assert early.labels["views_failed_total"] == early.labels["views_planned"]

    for seen in (early.values, late.values):
        assert (seen["views_planned"], seen["replicas"]) == (planned, 1)
        assert seen["views_failed_total"] == seen["replicas_lost_total"] == seen["votes_saved_total"] == 0
        assert seen["views_done_total"] < planned
        assert seen["requests_total"] < planned
    for name in ("views_done", "requests", "tokens", "busy_seconds"):
        assert 0 < early.values[f"{name}_total"] < late.values[f"{name}_total"]
    assert 0 < late.values["views_left"] < early.values["views_left"] < planned

    summary = run.read_json("summary/caption.json")
    assert summary is not None
    session = summary["this_session"]
    model = session["models"]["llama-3b"]
    assert final["views_done_total"] == planned
    assert final["views_failed_total"] == 1
    assert final["requests_total"] == model["calls"] == planned - 1
    assert final["tokens_total"] == session["tokens"] > 0
    assert final["replicas_lost_total"] == model["replicas_lost"] > 0
    assert final["busy_seconds_total"] == pytest.approx(model["busy_seconds"], abs=0.01)


def poisoned(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "quality_prompt": f"{row['quality_prompt']} {faulty.RAISE}"}
