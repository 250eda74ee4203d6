"""Results in the layout of the paper's tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from caslie_ray.evaluation.answers.metrics import Scored, score
from caslie_ray.evaluation.answers.results import Results
from caslie_ray.evaluation.answers.tables import as_latex, as_markdown, improvement, tables_of
from caslie_ray.tasks import TASKS, find_task
from tests.evaluation.answers.made_up import answered, cell


def all_scored(variants: dict[str, float]) -> list[Scored]:
    codes = {"ind": [task.code for task in TASKS.values()], "ood": ["AP", "CC", "PRP", "SA", "SR"]}
    return [
        score(cell(code, variant, split), answered(code, right, 0.05, 60).outcomes, 50)
        for variant, right in variants.items()
        for split, here in codes.items()
        for code in here
    ]


def test_tables_have_the_papers_layout_and_figures() -> None:
    variants = {"text": 0.5, "uia": 0.6, "caslie": 0.7, "shuffled": 0.55, "verdict-only": 0.58,
                "task-specific": 0.6, "context-free": 0.6, "voters-phi": 0.6, "voters-3": 0.65}  # fmt: skip
    scored = all_scored(variants)
    results = Results(scored, {("caslie", find_task("AP").name, "ind"): 0.25})
    tables = {table.number: table for table in tables_of(results)}
    assert list(tables) == ["4", "5", "6", "A3", "A4", "A7", "A8", "A9", "A10", "A11", "A12", "A13"]
    overall = tables["4"]
    assert overall.columns[2:] == (*(f"IND {task.code}" for task in TASKS.values()),
                                   *(f"OOD {code}" for code in ("AP", "CC", "PRP", "SA", "SR")))  # fmt: skip
    rows = {row[1]: row[2:] for row in overall.rows}
    assert rows["CASLIE-M"][:7] == ("0.891", "0.979", "0.566", "0.398", "0.731", "0.656", "0.223")
    assert rows["eCeLLM-L"][-1] == "0.304"
    assert rows["captions used, %"][:2] == ("25.0", "–")
    ours = next(one for one in scored if one.cell == cell("AP"))
    assert rows["CASLIE on base"][0] == f"{ours.primary.value:.3f}"
    for table in tables.values():
        assert {len(row) for row in table.rows} == {len(table.columns)}, table.number
        assert table.number == "5" or any(row[0] == "paper" for row in table.rows)
        assert any(row[0] == "ours" for row in table.rows)
    gains = [row for row in tables["6"].rows if "CASLIE − uniM³, text only" in row[1]]
    assert [row[-1][0] for row in gains] == ["+", "+"]
    assert any("failures left out" in row[1] for row in tables["A7"].rows)
    markdown, latex = as_markdown(list(tables.values())), as_latex(list(tables.values()))
    assert "### Table A13: SR, all metrics" in markdown
    assert latex.count(r"\toprule") == latex.count(r"\end{table}") == len(tables)


def test_all_tables_take_a_task_that_the_paper_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(find_task("AP"), name="gift_suitability", code="GS")
    monkeypatch.setitem(TASKS, own.name, own)
    variants = dict.fromkeys(("text", "uia", "caslie", "shuffled", "task-specific", "context-free", "voters-phi"), 0.6)
    tables = tables_of(Results(all_scored(variants), {}))
    assert [table.number for table in tables[:5]] == ["4", "5", "6", "A3", "A4"]
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.columns)}, table.heading
    for table in tables[1:5]:
        place = table.columns.index("GS")
        assert {row[place] for row in table.rows if row[0] == "paper"} <= {"–"}
        assert any(row[0] == "ours" and row[place] not in ("–", "") for row in table.rows), table.heading
        assert (table.number == "5") != ("The paper has no figures of GS; its means do not include them." in table.note)
    assert tables[-1].heading == "GS, all metrics"
    assert "### GS, all metrics" in as_markdown(tables)
    assert r"\caption{GS, all metrics}" in as_latex(tables)
    assert r"\caption{100\% \& x\_y}" in as_latex([replace(tables[-1], title="100% & x_y")])


def test_the_mean_improvement_is_the_papers() -> None:
    # 6.4: CASLIE-M improves on UIA by 4.1%, and on text only by 4.9%: the mean of the relative gains in all tasks, in
    # domain and out of it.
    paper = json.loads(Path("caslie_ray/evaluation/answers/tables/paper.json").read_text())["A7-A13"]

    def primary(variant: str) -> list[float]:
        return [
            row[task.metrics.primary]
            for task in TASKS.values()
            for row in paper
            if (row["task"], row["model"], row["variant"]) == (task.code, "CASLIE-M", variant)
        ]

    assert improvement(primary("caslie"), primary("uia")) == pytest.approx(0.041, abs=0.001)
    assert improvement(primary("caslie"), primary("text")) == pytest.approx(0.049, abs=0.001)
