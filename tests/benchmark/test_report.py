"""Entries, table and plot, from given measurements."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from caslie_ray.benchmark._entries import entries
from caslie_ray.benchmark._flops import peak_flops, utilisation
from caslie_ray.benchmark._systems import BARE, OURS, PLAIN, PUBLISHED, RAY_LLM, Setup, variants
from caslie_ray.benchmark._timing import Timing
from caslie_ray.benchmark._views import Workload
from caslie_ray.benchmark.options import MEASURES
from caslie_ray.benchmark.plot import plot
from caslie_ray.benchmark.table import show
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import open_run
from tests.worlds import profile, voter

OTHERS = (PUBLISHED, BARE, RAY_LLM, PLAIN)


def setup_of(chosen: Profile, tmp_path: Path, **counts: int) -> Setup:
    run = open_run(str(tmp_path))
    held = {"views": 100, "images": 90, "questions": 50, "examples": 40, **counts}
    workload = Workload(run, run, run, run, held)
    return Setup(chosen, "p.yaml", workload, run, tmp_path, 2, 0, MEASURES, False)


def timed(rate: float, **details: Any) -> Timing:
    return Timing(100, rate, 100 / rate + 5, 5.5, 5.0, details=details)


def results_of(chosen: Profile) -> dict[tuple[str, str], list[Timing]]:
    found: dict[tuple[str, str], list[Timing]] = defaultdict(list)
    for name in ("captioning", "voting", "chain", "chain early", "prediction"):
        found[BARE, name] = [timed(20), timed(25), timed(40)]
        found[PUBLISHED, name] = [timed(4), timed(5), timed(5)]
    found[PLAIN, "training"] = [timed(100)] * 3
    for variant in variants(chosen, MEASURES):
        found[OURS, variant.name] = [timed(20, resources={"CPU": 2.0}, calls=250), timed(30), timed(20)]
    return found


def by_name(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    assert len({one["name"] for one in found}) == len(found)
    return {one["name"]: one for one in found}


def test_names_say_what_is_compared_and_nothing_is_left_out(tmp_path: Path) -> None:
    chosen = profile()
    found = by_name(entries(setup_of(chosen, tmp_path), results_of(chosen), None))
    for measure in MEASURES:
        for other in [PLAIN] if measure == "training" else [PUBLISHED, BARE, RAY_LLM]:
            assert any(name.startswith(measure) and name.endswith(other) for name in found), (measure, other)
    for name, one in found.items():
        assert {"name", "ours", "other", "ratio", "low", "high", "unit"} <= one.keys()
        assert (one["ratio"] is None) == bool(one["reason"]), name
        assert any(other in name for other in OTHERS)
    json.dumps(list(found.values()), allow_nan=False)


def test_a_ratio_is_the_median_of_the_rounds_with_its_spread(tmp_path: Path) -> None:
    chosen = profile()
    one = by_name(entries(setup_of(chosen, tmp_path), results_of(chosen), None))["captioning vs bare engine"]
    # 20/20, 30/25 and 20/40
    assert (one["ratio"], one["low"], one["high"], one["rounds"]) == (1.0, 0.5, 1.2, 3)
    assert (one["ours"], one["other"], one["unit"]) == (20, 25, "views/s")
    assert one["ours_details"]["start_s"] == 5.0
    assert one["ours_details"]["first_row_s"] == 5.5


def test_the_other_side_is_scaled_to_the_cluster(tmp_path: Path) -> None:
    chosen = profile()
    results = results_of(chosen)
    results[OURS, "captioning"] = [timed(200, resources={"CPU": 20.0})] * 3
    found = by_name(entries(setup_of(chosen, tmp_path), results, None))
    one = found["captioning vs bare engine"]
    assert (one["other_scaled_by"], one["other"], one["ratio"]) == (10.0, 250, 0.8)


def test_what_cannot_run_has_a_reason(tmp_path: Path) -> None:
    chosen = profile(voter("phi"))
    results = results_of(chosen)
    results[OURS, "chain (streamed, full votes)"] = [Timing(100, None, 0.0, reason="exit code 1: no room")] * 3
    results[PLAIN, "training"] = [Timing(0, None, 0.0, reason="out of memory")] * 3
    found = by_name(entries(setup_of(chosen, tmp_path, questions=0), results, None))
    reasons = {name: one["reason"] for name, one in found.items() if one["ratio"] is None}
    assert reasons["captioning vs ray.data.llm"].startswith("it runs vLLM only")
    assert reasons["chain (streamed, full votes) vs bare engine"] == "ours: exit code 1: no room"
    assert reasons["chain (staged, early exit) vs bare engine"].startswith("one voter")
    assert reasons["prediction vs published loop"].startswith("the run has no instructions")
    assert reasons["training vs plain loop"] == "plain loop: out of memory"


def test_rows_that_came_at_once_have_no_ratio_and_keep_their_rate_with_start_up(tmp_path: Path) -> None:
    chosen = profile(voter("phi", engine="vllm"), settings=["lineup.captioner.engine=vllm"])
    results = results_of(chosen)
    results[RAY_LLM, "captioning"] = [Timing(1000, 1000.0, 64.0, 63.5, 63.0)] * 3
    results[RAY_LLM, "voting"] = [Timing(1000, 250.0, 54.0, 49.0, 50.0)] * 3
    found = by_name(entries(setup_of(chosen, tmp_path), results, None))
    captions, votes = found["captioning vs ray.data.llm"], found["voting vs ray.data.llm"]
    assert captions["ratio"] is None
    assert captions["reason"] == "ray.data.llm: all rows came at once: compare the rates with start-up"
    assert captions["other_details"]["rate_with_start"] == pytest.approx(1000 / 64, rel=1e-3)
    assert (votes["ratio"], votes["reason"]) == (0.08, "")
    lines = show(list(found.values()), [], None, {"quick": False})
    assert any("ray.data.llm: captioning" in line and "15.6 views/s" in line for line in lines)


def test_cost_and_votes(tmp_path: Path) -> None:
    chosen = profile(settings=["cost.hour_usd=3.6"])
    one = by_name(entries(setup_of(chosen, tmp_path), results_of(chosen), None))[
        "chain (staged, full votes) vs bare engine"
    ]
    assert one["usd_per_million_images"] == pytest.approx(50.0)  # 0.001 dollars a second, 20 images a second
    assert one["votes_per_s"] == pytest.approx(20 * (250 - 100) / 100)
    free = by_name(entries(setup_of(profile(), tmp_path), results_of(profile()), None))
    assert free["captioning vs bare engine"]["usd_per_million_images"] is None


def test_flop_utilisation_of_gpus_that_are_known() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3", "bfloat16") == 989e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "bfloat16") == 312e12
    assert peak_flops("NVIDIA A10G", "float16") == 70e12
    assert peak_flops("NVIDIA H100 80GB HBM3", "float32") is None
    assert peak_flops("Some GPU", "bfloat16") is None
    assert utilisation(1e9, 1000, 1e13, 2) == pytest.approx(0.1)
    assert utilisation(1e9, 1000, None, 2) is None


def test_the_table_has_every_figure(tmp_path: Path) -> None:
    chosen = profile()
    found = entries(setup_of(chosen, tmp_path), results_of(chosen), None)
    memory = {"driver": 100.0, "workers": 200.0, "object_store": None}
    scale = [{"views": 1000, "ms_a_view": 1.5, "cpu_ms_a_view": 2.5, "memory_mib": memory}]
    found.append(
        {
            "name": "voting: agreement of choose with the votes of the published loop", "ours": 99, "other": 100,
            "ratio": 0.99, "low": 0.99, "high": 0.99, "unit": "votes", "reason": "", "unmatched": 7, "unread": 3,
            "differences": [{"view_id": "abcdef", "voter": "phi", "p_yes": 0.51, "text": "no"}],
        }
    )  # fmt: skip
    text = "\n".join(show(found, scale, {"reading": 0.5, "ray": None}, {"profile": "mini", "gpu": None}))
    for one in found:
        assert one["name"] in text
    assert "99 of 100 compared agree" in text
    assert "7 unmatched (the two sides wrote different captions" in text
    assert "3 unread" in text
    assert "captioning vs ray.data.llm: it runs vLLM only" in text
    for side in ("ours: captioning", "bare engine: chain (early exit)", "published loop: chain", "plain loop: train"):
        assert side in text
    assert " views/s" in text.partition("start-up and peak memory")[2], "a rate has its unit"
    found[0]["rounds"] = 1
    assert "(one round)" in "\n".join(show(found, [], None, {"quick": True}))
    assert "(one round)" in plot(found)
    for figure in ("profile mini", "1 [0.5, 1.2]", "1,000", "reading 0.5 · ray –", "p(yes) 0.5100", "Not measured"):
        assert figure in text


def test_the_chart_has_a_bar_for_each_ratio(tmp_path: Path) -> None:
    chosen = profile()
    found = entries(setup_of(chosen, tmp_path), results_of(chosen), None)
    root = ElementTree.fromstring(plot(found))
    texts = ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]
    shown = [one["name"] for one in found if one["ratio"] is not None]
    assert [text for text in texts if " vs " in text] == shown
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == len(shown) + 1
    agreement = {"name": "voting: agreement", "ratio": 0.99, "low": 0.99, "high": 0.99}
    assert plot([*found, agreement]) == plot(found), "a share of votes is no ratio of rates"
    assert ElementTree.fromstring(plot([])) is not None
