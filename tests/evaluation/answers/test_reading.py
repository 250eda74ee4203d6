"""Answers are read together with the true ones, and measured."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from caslie_ray.evaluation.answers.measure import measure, summary_of, write_results
from caslie_ray.evaluation.answers.metrics import metric_rows
from caslie_ray.evaluation.answers.outcomes import Cell, Outcomes
from caslie_ray.evaluation.answers.plots import plots_of
from caslie_ray.evaluation.answers.reading import read_answers
from caslie_ray.evaluation.answers.tables import tables_of
from caslie_ray.fusion import EXPERIMENTS
from caslie_ray.prediction import Answerer
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS
from caslie_ray.tasks import SPLITS, TASKS, find_task
from tests.evaluation.answers.made_up import cell

ANSWERERS = [
    Answerer("base", name, "instructions", name, (), None, f"the weights of {name}") for name in ("caslie", "text")
]
MEASURED = ("ind", "ood")
OPTIONS = {"AP": ["yes", "no"], "CC": ["lamp", "vase"]}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    opened = open_run(str(tmp_path / "run"))
    names = {"AP": "yes", "CC": "lamp"}
    asked: list[dict[str, Any]] = [
        {"sample_id": f"{split}{code}{n}", "variant": variant, "task": find_task(code).name, "split": split,
         "prompt": f"{variant}: {code} {n}?", "prompt_fields": [], "options": OPTIONS[code],
         "response": names[code] if n % 2 else OPTIONS[code][-1], "captions_used": 0}
        for split in SPLITS for code in names for n in range(8) for variant in ("caslie", "text")
    ]  # fmt: skip
    opened.write("instructions", "0", pa.Table.from_pylist(asked, schema=SCHEMAS["instructions"]))
    keys = {answerer.variant: answerer.key for answerer in ANSWERERS}
    predictions = [
        {"sample_id": row["sample_id"], "model": "base", "variant": row["variant"], "text": "", "answer": answer,
         "failed": answer is None, "key": keys[row["variant"]](row["prompt"]), "tokens": 1, "cut": False,
         "error": None, "retryable": False}
        for row in asked if row["split"] in MEASURED
        for answer in [
            row["response"] if row["variant"] == "caslie" else None if row["sample_id"][-1] == "3"
            else row["options"][-1]
        ]
    ]  # fmt: skip
    opened.write("predictions", "0", pa.Table.from_pylist(predictions, schema=SCHEMAS["predictions"]))
    return opened


def hits(outcomes: Outcomes) -> int:
    return int(outcomes.confusion().hits.sum())


def replaced(run: Run, sample_id: str, **values: object) -> None:
    """Change the row of the variant `caslie` of a sample."""
    rows = run.read("predictions").to_pylist()
    rows = [row | values if (row["sample_id"], row["variant"]) == (sample_id, "caslie") else row for row in rows]
    run.write("predictions", "0", pa.Table.from_pylist(rows, schema=SCHEMAS["predictions"]))


def test_answers_are_compared_with_the_truth(run: Run) -> None:
    found = read_answers(run, ANSWERERS, MEASURED)
    assert {name: len(one) for name, one in found.cells.items()} == {
        Cell("base", variant, find_task(code).name, split): 8
        for variant in ("caslie", "text") for code in OPTIONS for split in MEASURED
    }  # fmt: skip
    assert hits(found.cells[cell("CC")]) == 8
    assert found.cells[cell("AP", "text")].failed == 1
    assert not found.missing


def test_a_true_answer_is_read_as_any_other(run: Run) -> None:
    rows = run.read("instructions").to_pylist()
    for row in rows:
        if row["response"] == "lamp":
            row["response"] = "A"  # which of the options, and not its words
            row["options"] = ["A: lamp", "B: vase"]
    run.write("instructions", "0", pa.Table.from_pylist(rows, schema=SCHEMAS["instructions"]))
    found = read_answers(run, ANSWERERS, MEASURED)
    assert not found.left_out
    assert {len(outcomes) for outcomes in found.cells.values()} == {8}


def rewritten(run: Run, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change instructions, as an older version of `ingest` and `fuse` might have written them."""
    rows = [row | change(row) for row in run.read("instructions").to_pylist()]
    run.write("instructions", "0", pa.Table.from_pylist(rows, schema=SCHEMAS["instructions"]))


def test_a_true_answer_that_is_no_option_is_not_measured_and_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    before = read_answers(run, ANSWERERS, MEASURED)
    odd = ("indAP1", "indAP3", "oodAP1", "indCC2", "trainAP1")  # train is not measured: training says it itself
    rewritten(run, lambda row: {"response": "perhaps"} if row["sample_id"] in odd else {})
    found = read_answers(run, ANSWERERS, MEASURED)
    assert found.left_out == {"AP": {"ind": 2, "ood": 1}, "CC": {"ind": 1}}
    assert not found.missing
    for name, outcomes in found.cells.items():
        code = find_task(name.task).code
        kept = [n for n in range(8) if f"{name.split}{code}{n}" not in odd]
        assert outcomes.codes.tolist() == before.cells[name].codes[kept].tolist()
    measured = measure(run, ANSWERERS, MEASURED, 10)
    assert measured is not None
    assert measured.left_out == found.left_out
    assert re.search(
        r"4 samples are not measured, .* sample (ind|ood)\w+: 'perhaps' is none of '(yes|lamp)'", caplog.text
    )
    assert "correct the source and run ingest again" in caplog.text
    (ours,) = {
        row["n"] for row in metric_rows(measured.scored) if (row["task"], row["split"]) == (cell("AP").task, "ind")
    }
    assert ours == 6
    tables = {table.heading: table.note for table in tables_of(measured.results)}
    assert tables["Table A7: AP, all metrics"].endswith("none of their options or labels: AP ind 2, AP ood 1.")
    assert tables["Table A8: CC, all metrics"].endswith("none of their options or labels: CC ind 1.")
    assert "AP ind 2, AP ood 1, CC ind 1." in tables["Table 4: Overall performance, primary metric of each task"]


def test_a_run_without_any_valid_true_answer_is_reported(run: Run) -> None:
    rewritten(run, lambda row: {"response": "perhaps"})
    measured = measure(run, ANSWERERS, MEASURED, 10)
    assert measured is not None
    assert measured.left_out == {code: {"ind": 8, "ood": 8} for code in ("AP", "CC")}
    write_results(run, measured)
    assert run.read_json("report/metrics.json") == []
    assert summary_of(measured) == {}


def test_a_true_answer_in_other_words_is_measured(run: Run) -> None:
    """Spellings of the released data: the letter of an option, its words in other case, yes with a full stop."""
    spelled = {"yes": "Yes.", "no": "No", "lamp": "A: lamp", "vase": "B"}

    def change(row: dict[str, Any]) -> dict[str, Any]:
        options = ["A: lamp", "B: vase"] if row["options"] == OPTIONS["CC"] else row["options"]
        return {"response": spelled[row["response"]], "options": options}

    rewritten(run, change)
    assert read_answers(run, ANSWERERS, MEASURED).left_out == {}


def test_an_engine_error_counts_as_wrong(run: Run) -> None:
    replaced(run, "indCC1", answer=None, failed=True, error="out of memory", retryable=True)
    found = read_answers(run, ANSWERERS, MEASURED).cells[cell("CC")]
    assert (len(found), found.failed) == (8, 1)


@pytest.mark.parametrize("why", ["another model", "another question"])
def test_answers_of_another_model_or_to_another_question_do_not_count(run: Run, why: str) -> None:
    if why == "another model":
        replaced(run, "indCC1", key="of an adapter that was trained before")
    else:
        rows = run.read("instructions").to_pylist()
        for row in rows:
            row["prompt"] += " now" if (row["sample_id"], row["variant"]) == ("indCC1", "caslie") else ""
        run.write("instructions", "0", pa.Table.from_pylist(rows, schema=SCHEMAS["instructions"]))
    found = read_answers(run, ANSWERERS, MEASURED)
    assert len(found.cells[cell("CC")]) == 7
    assert found.missing == {"caslie": {"ind": 1}}
    measured = measure(run, ANSWERERS, MEASURED, 10)
    assert measured is not None
    assert measured.missing == found.missing


def test_only_the_given_models_are_measured(run: Run) -> None:
    assert {one.variant for one in read_answers(run, ANSWERERS[:1], MEASURED).cells} == {"caslie"}


def test_metrics_and_tables_are_written(run: Run) -> None:
    measured = measure(run, ANSWERERS, MEASURED, 20)
    assert measured is not None
    write_results(run, measured)
    metrics = run.read_json("report/metrics.json")
    needed = {"model", "variant", "task", "split", "metric", "primary", "value", "low", "high", "n", "failed"}
    assert all(needed <= row.keys() for row in metrics)
    assert all(row["low"] <= row["value"] <= row["high"] for row in metrics)
    assert sum(row["primary"] for row in metrics) == 8
    assert "Table 6" in run.read_bytes(run.path("report/tables.md")).decode()
    gaps = summary_of(measured)["base"]["ind"]["caslie_exceeds"]
    assert gaps["text"]["value"] > 0


def test_a_run_without_predictions_has_no_results(tmp_path: Path) -> None:
    assert measure(open_run(str(tmp_path)), ANSWERERS, MEASURED, 10) is None


def test_an_eighth_task_is_measured_in_every_experiment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(find_task("CC"), name="gift_suitability", code="GS")
    monkeypatch.setitem(TASKS, own.name, own)
    names = ("text", "uia", "caslie", "base", "task-specific", "shuffled", "verdict-only", "context-free", "voters-phi",
             "voters-3")  # fmt: skip
    experiments = names[5:]
    answerers = [
        Answerer("base", name, EXPERIMENTS if name in experiments else "instructions",
                 "caslie" if name in ("base", "task-specific") else name, (), None, name)
        for name in names
    ]  # fmt: skip
    for table, variants in (("instructions", names[:3]), (EXPERIMENTS, experiments)):
        asked = [
            {"sample_id": f"{split}{n}", "variant": variant, "task": own.name, "split": split, "prompt": f"{n}?",
             "prompt_fields": [], "options": OPTIONS["CC"], "response": "lamp", "captions_used": 1}
            for split in MEASURED for n in range(8) for variant in variants
        ]  # fmt: skip
        run.write(table, "0", pa.Table.from_pylist(asked, schema=SCHEMAS[table]))
    predictions = [
        {"sample_id": f"{split}{n}", "model": "base", "variant": one.variant, "text": "", "key": one.key(f"{n}?"),
         "answer": OPTIONS["CC"][n % 3 % 2], "failed": False, "tokens": 1, "cut": False, "error": None,
         "retryable": False}
        for split in MEASURED for n in range(8) for one in answerers
    ]  # fmt: skip
    run.write("predictions", "0", pa.Table.from_pylist(predictions, schema=SCHEMAS["predictions"]))
    measured = measure(run, answerers, MEASURED, 10)
    assert measured is not None
    write_results(run, measured)
    tables = run.read_bytes(run.path("report/tables.md")).decode()
    assert all(f"### Table {number}: " in tables for number in ("4", "5", "6", "A3", "A4"))
    assert "### GS, all metrics" in tables
    assert {row["variant"] for row in run.read_json("report/metrics.json")} == set(names)
    assert summary_of(measured)["base"]["ind"]["mean_primary"]["voters-3"]["by_task"]["GS"] == 0.625
    assert "GS, all metrics" in [plot.title for plot in plots_of(measured)]
