"""Evaluates a run with captions and votes of the miniature models."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from caslie_ray.dataset import ingest
from caslie_ray.errors import RunError
from caslie_ray.evaluation import evaluate, plan_evaluation
from caslie_ray.evaluation.captions.drawn_truth import KnownView, read_truth
from caslie_ray.evaluation.captions.truth_files import find_truth
from caslie_ray.evaluation.summary_lines import summary_lines
from caslie_ray.miniature import WorldSize
from caslie_ray.profiles import Profile, load_profile
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS
from tests.worlds import VOTERS, InProcess, caption_here, draw, fresh_run, profile, rows, voter

SETTINGS = ["votes.schedule=full", "evaluation.context_free=true", "evaluation.resamples=200"]


def chosen(*settings: str) -> Profile:
    return profile(settings=[*SETTINGS, *settings])


@pytest.fixture(scope="module")
def measured(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on held-out drawings, voted on by three, with its evaluation."""
    folder = tmp_path_factory.mktemp("measured") / "run"
    run = open_run(str(folder))
    size = WorldSize(train=0, validation=0, ind=6, ood=6, combinations="held_out")
    ingest(run, [str(draw(folder / "source", size))], chosen(), quiet=True)
    caption_here(run, chosen(), InProcess())
    evaluate(run, chosen(), quiet=True)
    return folder


@pytest.fixture
def run(measured: Path, tmp_path: Path) -> Run:
    return fresh_run(measured, tmp_path / "run")


def known_views(run: Run) -> dict[str, KnownView]:
    found = find_truth(run, chosen())
    assert found is not None
    return read_truth(run, found, {row["view_id"] for row in rows(run, "views")})


def figures(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = run.read_json("summary/evaluate.json")["figures"]
    return found


def test_every_view_is_counted_and_compared_with_the_truth(run: Run) -> None:
    views = rows(run)
    summary = run.read_json("summary/evaluate.json")
    assert summary["views"] == len(views)
    assert summary["voters"] == list(VOTERS[:3])
    found = figures(run)
    assert found["used"]["value"] == pytest.approx(sum(row["verdict"] for row in views) / len(views), abs=1e-6)
    truth = found["truth"]
    assert truth["held_out"]["value"] == 1
    assert sum(cell["value"] for cell in truth["usefulness"].values()) == pytest.approx(1, abs=1e-5)
    assert sum(cell["value"] for cell in truth["pictures"].values()) == pytest.approx(1, abs=1e-5)
    assert truth["captions"]["informative"]["described_as_a_product"]["value"] > 0.9
    assert set(truth["verdicts"]["verdict_by_split"]) == {"ind", "ood"}
    assert set(truth["verdicts"]["voters"]) == set(VOTERS[:3])
    assert found["agreement"]["views"] == len(views)
    assert len(found["agreement"]["pairs"]) == 3


def test_the_miniature_models_caption_and_vote(run: Run) -> None:
    """The short form of tests/evaluation/test_measured.py, on fewer drawings and so with more room."""
    truth = figures(run)["truth"]
    assert truth["captions"]["informative"]["asked_and_right"]["value"] > 0.9
    assert truth["captions"]["placeholder"]["described_as_a_product"]["value"] < 0.1
    assert truth["context"]["gap"]["value"] > 0.1
    majority = truth["verdicts"]["majorities"][0]
    assert majority["voters"] == list(VOTERS[:3])
    assert majority["balanced_accuracy"]["value"] > 0.85


def test_captions_without_context_are_one_per_image_in_a_folder_of_their_own(run: Run) -> None:
    free = open_run(run.path("context_free"))
    assert not free.files("views")
    assert not free.files("images")
    by_image = {row["image_id"]: row["caption"] for row in rows(free)}
    assert all(row["caption"] == by_image[row["image_id"]] for row in rows(free))
    assert [row["view_id"] for row in rows(free)] == [row["view_id"] for row in rows(run)]
    before = [free.read_file(path) for path in free.files("captions")]
    assert evaluate(run, chosen(), quiet=True)["figures"] == figures(run)
    assert [free.read_file(path) for path in free.files("captions")] == before


def test_a_run_without_truth_still_has_agreement_and_a_page(run: Run) -> None:
    run.delete([run.path("source/truth/views.parquet")])
    summary = evaluate(run, chosen(), quiet=True)
    assert summary["figures"]["truth"] is None
    assert summary["figures"]["agreement"]["views"] == len(rows(run))
    page = Path(run.path("report/index.html")).read_text(encoding="utf-8")
    assert '"usefulness":' not in "".join(re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page))


def test_the_page_keeps_the_worst(run: Run) -> None:
    evaluate(run, chosen("evaluation.page_views=5", "evaluation.context_free=false"), quiet=True)
    page = Path(run.path("report/index.html")).read_text(encoding="utf-8")
    on_page = [row["view_id"] for row in rows(run) if row["view_id"] in page]
    assert len(on_page) == 5
    assert f"{len(rows(run)) - 5:,}" in page


def test_early_exit_gives_no_rates_of_single_voters(run: Run) -> None:
    """Later voters saw contested views only, so their rates would be biased."""
    early = chosen("votes.schedule=early", "votes.audit=0.0", "evaluation.context_free=false")
    summary = evaluate(run, early, quiet=True)
    assert summary["figures"]["agreement"] is None
    assert summary["figures"]["truth"]["verdicts"]["voters"] == {}
    assert summary["figures"]["truth"]["verdicts"]["verdict"]["balanced_accuracy"]["n"] == len(rows(run))


def test_error_rows_are_counted_and_shown(run: Run) -> None:
    found = rows(run)
    first = found[0] | {"caption": None, "votes": [], "verdict": False, "error": "poison: segfault"}
    stem = f"{first['image_id'][:1]}-late"
    run.write("captions", stem, pa.Table.from_pylist([first], schema=SCHEMAS["captions"]))
    summary = evaluate(run, chosen("evaluation.context_free=false"), quiet=True)
    assert summary["figures"]["failed"]["value"] == pytest.approx(1 / len(found), abs=1e-6)
    assert summary["views"] == len(found)
    assert "poison: segfault" in Path(run.path("report/index.html")).read_text(encoding="utf-8")


def test_sets_of_voters_are_those_of_the_lineup(run: Run) -> None:
    sets = json.dumps([["vision"]])
    summary = evaluate(run, chosen(f"evaluation.voter_sets={sets}", "evaluation.context_free=false"), quiet=True)
    assert [cell["voters"] for cell in summary["figures"]["truth"]["verdicts"]["majorities"]] == [
        ["vision"], list(VOTERS[:3]),
    ]  # fmt: skip


def test_the_truth_of_another_data_set_is_refused(run: Run, tmp_path: Path) -> None:
    draw(tmp_path / "other", WorldSize(train=1, validation=0, ind=0, ood=0), seed=9)
    with pytest.raises(RunError, match="truth of another data set"):
        evaluate(run, chosen(f"evaluation.truth={tmp_path}/other/truth"), quiet=True)
    with pytest.raises(RunError, match=r"holds no truth.*evaluation\.truth"):
        evaluate(run, chosen(f"evaluation.truth={tmp_path}"), quiet=True)


def test_the_profile_of_another_lineup_is_refused(run: Run) -> None:
    other = profile(voter("phi"), settings=SETTINGS)
    with pytest.raises(RunError, match=r"votes of llama-3b, llama-8b, vision.*that the run was captioned with"):
        evaluate(run, other, quiet=True)
    more = profile(*(voter(name) for name in VOTERS), settings=SETTINGS)
    with pytest.raises(RunError, match=r"mistral, phi did not vote on view .*that the run was captioned with"):
        evaluate(run, more, quiet=True)


def test_a_failed_caption_names_no_asked_attribute(run: Run) -> None:
    before = figures(run)["truth"]["captions"]["informative"]["asked_and_right"]
    truth = known_views(run)
    for row in rows(run):
        known = truth[row["view_id"]].truth
        if known.picture.kind == "informative" and "colour" in known.asks and "red" not in (row["caption"] or ""):
            break
    failed = row | {"caption": None, "votes": [], "verdict": False, "error": "out of memory"}
    run.write("captions", f"{row['image_id'][:1]}-late", pa.Table.from_pylist([failed], schema=SCHEMAS["captions"]))
    after = evaluate(run, chosen("evaluation.context_free=false"), quiet=True)["figures"]["truth"]
    named = after["captions"]["informative"]["asked_and_right"]
    assert named["n"] == before["n"]
    assert round(named["value"] * named["n"]) == round(before["value"] * before["n"]) - 1
    assert after["verdicts"]["captions_that_help"]["n"] == len(rows(run)) - 1


def test_a_view_of_several_samples_asks_for_what_any_of_them_does(run: Run) -> None:
    path = run.path("source/truth/views.parquet")
    table = pq.read_table(path)
    ids = {row["sample_id"]: row["view_ids"] for row in rows(run, "samples")}
    found = table.to_pylist()
    views = [ids[row["sample_id"]][row["position"]] for row in found]
    again = next(at for at, view in enumerate(views) if view in views[:at])
    found[again]["asks"] = ["pattern"]
    pq.write_table(pa.Table.from_pylist(found, schema=table.schema), path)
    wanted: dict[str, set[str]] = {}
    for view, row in zip(views, found, strict=True):
        wanted.setdefault(view, set()).update(row["asks"])
    assert wanted[views[again]] == {"colour", "pattern"}
    truth = known_views(run)
    assert {view: set(known.truth.asks) for view, known in truth.items()} == wanted


def test_a_large_run_is_read_in_tasks_with_the_same_figures_and_page(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    here = evaluate(run, chosen(), quiet=True)
    page = run.read_bytes(run.path("report/index.html"))
    monkeypatch.setattr("caslie_ray.cluster.distribution.DISTRIBUTE_FROM", 1)
    in_tasks = evaluate(run, chosen(), quiet=True)
    assert in_tasks | {"seconds": here["seconds"]} == here
    assert run.read_bytes(run.path("report/index.html")) == page


def test_a_run_without_truth_is_evaluated_without_the_miniature_world(run: Run) -> None:
    """A shop's installation may lack `caslie_ray.miniature`."""
    run.delete([run.path("source/truth/views.parquet")])
    script = f"""
import sys
sys.modules["caslie_ray.miniature"] = None
from caslie_ray.evaluation import evaluate
from caslie_ray.evaluation.summary_lines import summary_lines
from caslie_ray.profiles import load_profile
from caslie_ray.storage.run import open_run
profile = load_profile("mini", {[f"lineup.voters={json.dumps([voter(name) for name in VOTERS[:3]])}", *SETTINGS]!r})
print(*summary_lines(evaluate(open_run({run.root!r}), profile, quiet=True)), sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{len(rows(run))} · " in done.stdout


def test_views_without_a_caption_row_are_reported(run: Run) -> None:
    path = run.files("captions")[0]
    lost = run.count_rows(path)
    run.delete([path])
    summary = evaluate(run, chosen("evaluation.context_free=false"), quiet=True)
    assert summary["views_without_row"] == lost
    assert f"without a row    {lost} views: run caption to its end" in "\n".join(summary_lines(summary))


def test_nothing_to_measure(world: Path, tmp_path: Path) -> None:
    run = fresh_run(world, tmp_path / "run")
    with pytest.raises(RunError, match="run caption first"):
        evaluate(run, profile(), quiet=True)
    assert "0 caption rows" in plan_evaluation(run, profile())[0]
    with pytest.raises(RunError, match="run ingest first"):
        plan_evaluation(open_run(str(tmp_path / "none")), profile())


def test_a_plan_loads_nothing(run: Run) -> None:
    plan = "\n".join(plan_evaluation(run, chosen()))
    assert f"{len(rows(run))} caption rows" in plan
    assert "known of" in plan
    assert "context_free" in plan
    for quiet in (profile(), chosen("captions.context=free")):
        assert "models           none" in plan_evaluation(run, quiet)


def test_the_shipped_profile_measures_seven_voters_on_held_out_drawings() -> None:
    found = load_profile("measure")
    assert len(found.lineup.voters) == 7
    assert found.miniature.combinations == "held_out"
    assert [len(names) for names in found.evaluation.voter_sets] == [3, 5]
    assert voter("phi")["checkpoint"] in {model.checkpoint for model in found.lineup.voters}
