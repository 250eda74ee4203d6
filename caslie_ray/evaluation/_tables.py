"""Results as the paper lays its tables out, with the paper's own figures beside ours."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from tabulate import tabulate

from caslie_ray.evaluation._answers import describe_left_out
from caslie_ray.evaluation._scores import Interval, Scored, difference, mean_of
from caslie_ray.fusion import CONTEXT_FREE, SHUFFLED, VERDICT_ONLY
from caslie_ray.tasks import TASKS

__all__ = ["NAMES", "Results", "Table", "as_latex", "as_markdown", "improvement", "tables_of"]

_SPLITS = ("ind", "ood")
_TITLES = {"ind": "IND", "ood": "OOD"}
_VARIANTS = ("text", "uia", "caslie")
NAMES = {
    "text": "uniM³, text only",
    "uia": "CASLIE-UIA, use it always",
    "caslie": "CASLIE",
    SHUFFLED: "verdicts shuffled",
    VERDICT_ONLY: "verdicts without captions",
    CONTEXT_FREE: "without context",
    "task-specific": "task-specific",
    "base": "the base as it is",
}
"""What variants are called in tables."""

_OURS, _PAPERS = "ours", "paper"

Used = Mapping[tuple[str, str, str], float]
"""The share of captions used, by variant, task and split."""


@dataclass(frozen=True)
class Table:
    """A table, ready to be written out.

    Attributes:
        number: that of the paper's table which it is laid out as; empty where the paper has none.
        title: what it shows.
        columns: their heads.
        rows: cells of each; the first two say whose figures they are, and of what.
        note: what a reader must know.
    """

    number: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    @property
    def heading(self) -> str:
        """Its number and title."""
        return f"Table {self.number}: {self.title}" if self.number else self.title


class Results:
    """What was measured, by model, variant and split.

    Args:
        scored: the cells.
        used: the shares of captions used.
        left_out: samples that are not measured, by the task's code and split; see `Answers.left_out`.
        of_bits: what the verdicts alone predict; see `predictions_of_bits`.
    """

    def __init__(
        self,
        scored: Sequence[Scored],
        used: Used,
        left_out: Mapping[str, Mapping[str, int]] | None = None,
        of_bits: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.used = used
        self.left_out = left_out or {}
        self.of_bits = of_bits or {}
        self.models = list(dict.fromkeys(one.cell.model for one in scored))
        place = {name: at for at, name in enumerate(NAMES)}
        found = {one.cell.variant for one in scored}
        self.variants = sorted(found, key=lambda name: (place.get(name, len(place)), name))
        self._cells = {one.cell: one for one in scored}

    def cells(self, model: str, variant: str, split: str) -> list[Scored]:
        """Return the cells of a variant in a split, in the paper's order of tasks."""
        order = list(TASKS)
        found = [
            one
            for cell, one in self._cells.items()
            if (cell.model, cell.variant, cell.split) == (model, variant, split)
        ]
        return sorted(found, key=lambda one: order.index(one.cell.task))

    def tasks(self, split: str) -> list[str]:
        """Return the codes of the tasks of a split, in the paper's order."""
        found = {cell.task for cell in self._cells if cell.split == split}
        return [task.code for name, task in TASKS.items() if name in found]

    def pair(self, model: str, one: str, other: str, split: str) -> tuple[list[Scored], list[Scored]]:
        """Return the cells of two variants, of the tasks that both have."""
        mine, its = self.cells(model, one, split), self.cells(model, other, split)
        both = {cell.cell.task for cell in mine} & {cell.cell.task for cell in its}
        return [c for c in mine if c.cell.task in both], [c for c in its if c.cell.task in both]


@cache
def _paper() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads(
        (files("caslie_ray.evaluation") / "paper.json").read_text("utf-8")
    )
    return found


def _paper_numbers() -> dict[str, str]:
    """The number of the paper's table of each task, by code."""
    return {row["task"]: row["number"] for row in _paper()["numbers"]}


def tables_of(results: Results) -> list[Table]:
    """Return all tables for which there are results."""
    made = [_overall(results), _generalist(results), _ablation(results), _captioners(results), _voters(results)]
    bits = _verdict_bits(results)
    return [*(_with_notes(table, results) for table in made if table is not None), *bits, *_detailed(results)]


def _with_notes(table: Table, results: Results) -> Table:
    """Add to a table of all tasks what was left out, and which tasks the paper's means are without."""
    notes = [table.note, _left_out_note(results.left_out)]
    own = [code for code in _codes() if code not in _paper_numbers()]
    if own and any(row[0] == _PAPERS for row in table.rows):
        notes.append(f"The paper has no figures of {', '.join(own)}; its means are without.")
    return replace(table, note=" ".join(filter(None, notes)))


def _left_out_note(left_out: Mapping[str, Mapping[str, int]]) -> str:
    if not left_out:
        return ""
    return (
        f"Samples left out because their true answer is none of their options or labels: {describe_left_out(left_out)}."
    )


def _heads(results: Results, splits: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{_TITLES[split]} {code}" for split in splits for code in results.tasks(split))


def _figures(results: Results, model: str, variant: str, splits: Iterable[str]) -> list[str]:
    cells: list[str] = []
    for split in splits:
        found = {one.task.code: one for one in results.cells(model, variant, split)}
        cells += [_short(found[code].primary.value) if code in found else "–" for code in results.tasks(split)]
    return cells


def _paper_figures(results: Results, model: str, variant: str | None, splits: Iterable[str]) -> list[str]:
    cells: list[str] = []
    for split in splits:
        found = {
            row["task"]: row
            for row in _paper()["A7-A13"]
            if (row["model"], row["variant"], row["split"]) == (model, variant, split)
        }
        primary = {task.code: task.metrics.primary for task in TASKS.values()}
        cells += [_short(found[code].get(primary[code])) if code in found else "–" for code in results.tasks(split)]
    return cells


def _overall(results: Results) -> Table | None:
    if "caslie" not in results.variants:
        return None
    rows = [
        (_PAPERS, name, *_paper_figures(results, name, None, _SPLITS))
        for name in dict.fromkeys(row["model"] for row in _paper()["A7-A13"] if row["variant"] is None)
    ]
    rows += [
        (_PAPERS, name, *_paper_figures(results, name, "caslie", _SPLITS))
        for name in ("CASLIE-L", "CASLIE-M", "CASLIE-S")
    ]
    for model in results.models:
        rows.append((_OURS, f"CASLIE on {model}", *_figures(results, model, "caslie", _SPLITS)))
    rows.append((_OURS, "captions used, %", *_usage(results, "caslie")))
    return Table(
        "4", "Overall performance, primary metric of each task", ("", "model", *_heads(results, _SPLITS)), tuple(rows),
        "The paper's figures are those of its Tables A7 to A13, of another data set: they are here for the layout and"
        " the size of things, not to be compared.",
    )  # fmt: skip


def _usage(results: Results, variant: str) -> list[str]:
    names = {task.code: name for name, task in TASKS.items()}
    shares = [results.used.get((variant, names[code], split)) for split in _SPLITS for code in results.tasks(split)]
    return ["–" if share is None else f"{100 * share:.1f}" for share in shares]


def _generalist(results: Results) -> Table | None:
    if "task-specific" not in results.variants:
        return None
    rows = []
    for model in results.models:
        for split in _SPLITS:
            for variant, name in (("task-specific", "task-specific"), ("caslie", "generalist")):
                cells = results.cells(model, variant, split)
                if cells:
                    rows.append((_OURS, f"{model} {_TITLES[split]}, {name}", *_by_task(cells), _said(mean_of(cells))))
            gain, specific = results.pair(model, "caslie", "task-specific", split)
            if gain:
                rows.append((_OURS, f"{model} {_TITLES[split]}, mean improvement", *_blank(), _percent(gain, specific)))
    return Table(
        "5", "Task-specific and generalist models", ("", "model", *_codes(), "mean [95%]"), tuple(rows),
        "The paper's Table 5 did not survive as text; it says that generalists of its sizes L, M and S improve on"
        " task-specific models by 44.8%, 7.3% and 15.4% over all tasks but PSI.",
    )  # fmt: skip


def _ablation(results: Results) -> Table | None:
    shown = [name for name in (*_VARIANTS, SHUFFLED, VERDICT_ONLY, "base") if name in results.variants]
    if len(shown) < 2:
        return None
    rows = []
    for split in _SPLITS:
        for size in ("CASLIE-L", "CASLIE-M", "CASLIE-S"):
            for variant in _VARIANTS:
                figures = _aligned(results, split, _paper_figures(results, size, variant, [split]))
                values = [float(figure) for figure in figures if figure not in ("–", "")]
                mean = _short(float(np.mean(values))) if values else "–"
                rows.append((_PAPERS, f"{_TITLES[split]} {size} {NAMES[variant]}", *figures, mean))
        for model in results.models:
            for variant in shown:
                cells = results.cells(model, variant, split)
                if cells:
                    rows.append(
                        (_OURS, f"{_TITLES[split]} {model} {NAMES[variant]}", *_by_task(cells), _said(mean_of(cells)))
                    )
            for variant in shown:
                mine, its = results.pair(model, "caslie", variant, split)
                if variant != "caslie" and mine:
                    gap = difference(mine, its)
                    rows.append((_OURS, f"{_TITLES[split]} CASLIE − {NAMES[variant]}", *_blank(), _signed(gap)))
                    rows.append(
                        (_OURS, f"{_TITLES[split]} CASLIE over {NAMES[variant]}, mean improvement", *_blank(),
                         _percent(mine, its))
                    )  # fmt: skip
    for model in results.models:
        for variant in shown:
            pairs = [results.pair(model, "caslie", variant, split) for split in _SPLITS]
            both = [[one for pair in pairs for one in pair[side]] for side in (0, 1)]
            if variant != "caslie" and both[0]:
                name = f"IND and OOD CASLIE over {NAMES[variant]}, mean improvement"
                rows.append((_OURS, name, *_blank(), _percent(*both)))
    return Table(
        "6", "Ablation: text only, every caption, captions that won", ("", "variant", *_codes(), "mean [95%]"),
        tuple(rows),
        "An answer that cannot be read counts as wrong here; the paper leaves it out (Tables A7 to A13 show both)."
        " Improvement: the mean of the relative gains in each task and split, as the paper computes it.",
    )  # fmt: skip


def _verdict_bits(results: Results) -> list[Table]:
    rows = [
        (
            _OURS,
            f"{code} {_TITLES[split]}",
            *(_said(Interval(**found[name])) for name in ("majority", "accuracy", "gain")),
            _said(Interval(**found["mutual_information"]), 4),
            f"{found['n']:,}",
        )
        for code, splits in results.of_bits.items()
        for split, found in splits.items()
    ]
    if not rows:
        return []
    return [
        Table(
            "", "What the verdicts alone tell",
            ("", "task", "most frequent answer", "verdicts", "difference", "mutual information", "samples"),
            tuple(rows),
            "Accuracy of the most frequent answer of each pattern of verdicts in training, without text and captions."
            " Where the difference is large, models learn the answer from which captions are there, not from what they"
            " say. Mutual information of verdicts and answer is in bits.",
        )
    ]  # fmt: skip


def _captioners(results: Results) -> Table | None:
    if CONTEXT_FREE not in results.variants:
        return None
    rows = [
        (
            _PAPERS,
            ", ".join(filter(None, (row["setting"], row["captioner"]))),
            *(_short(row.get(code)) for code in _codes()),
            "",
        )
        for row in _paper()["A3"]
    ]
    rows += _ours(results, ("text", CONTEXT_FREE, "caslie"), {"caslie": "with context"})
    return Table(
        "A3", "Captions with and without their context, IND", ("", "captions", *_codes(), "mean [95%]"), tuple(rows)
    )


def _voters(results: Results) -> Table | None:
    sets = [name for name in results.variants if name.startswith("voters-")]
    if not sets:
        return None
    rows = [(_PAPERS, row["voters"], *(_short(row.get(code)) for code in _codes()), "") for row in _paper()["A4"]]
    rows += _ours(results, ("uia", *sets, "caslie"), {"caslie": "the run's lineup", **{name: name for name in sets}})
    return Table("A4", "Who decides on captions, IND", ("", "voters", *_codes(), "mean [95%]"), tuple(rows))


def _ours(results: Results, variants: Iterable[str], names: Mapping[str, str]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for model in results.models:
        for variant in variants:
            cells = results.cells(model, variant, "ind")
            if cells:
                name = names.get(variant) or NAMES[variant]
                rows.append((_OURS, f"{model} {name}", *_by_task(cells), _said(mean_of(cells))))
    return rows


def _detailed(results: Results) -> list[Table]:
    tables = []
    for name, task in TASKS.items():
        cells = [one for model in results.models for variant in results.variants for split in _SPLITS
                 for one in results.cells(model, variant, split) if one.cell.task == name]  # fmt: skip
        if not cells:
            continue
        titles = task.metrics.titles
        metrics = list(titles)
        splits = [split for split in _SPLITS if any(one.cell.split == split for one in cells)]
        heads = [f"{_TITLES[split]} {title}" for split in splits for title in (*titles.values(), "#Failed")]
        rows = []
        for row_name, found in _paper_details(task.code):
            line = [_short(found.get(split, {}).get(metric)) for split in splits for metric in (*metrics, "failed")]
            rows.append((_PAPERS, row_name, *line))
        for model in results.models:
            for variant in results.variants:
                here = {one.cell.split: one for one in cells if (one.cell.model, one.cell.variant) == (model, variant)}
                for said, values in _both_ways(here):
                    line = []
                    for split in splits:
                        one = here.get(split)
                        line += [_short(values(one).get(metric) if one else None) for metric in metrics]
                        line.append(str(one.failed) if one else "–")
                    rows.append((_OURS, f"{model} {NAMES.get(variant, variant)}{said}", *line))
        left_out = {code: splits for code, splits in results.left_out.items() if code == task.code}
        number, title = _paper_numbers().get(task.code, ""), f"{task.code}, all metrics"
        tables.append(Table(number, title, ("", "model", *heads), tuple(rows), _left_out_note(left_out)))
    return tables


_Values = Callable[[Scored], Mapping[str, float]]


def _both_ways(cells: Mapping[str, Scored]) -> list[tuple[str, _Values]]:
    """Failures counted as wrong, and, where there are any, left out."""
    ways: list[tuple[str, _Values]] = [("", lambda one: one.values)]
    if any(one.failed for one in cells.values()):
        ways.append((", failures left out", lambda one: one.without_failed))
    return ways


def _paper_details(code: str) -> list[tuple[str, dict[str, dict[str, Any]]]]:
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in _paper()["A7-A13"]:
        if row["task"] == code:
            name = row["model"] if row["variant"] is None else f"{row['model']} {NAMES[row['variant']]}"
            found.setdefault(name, {})[row["split"]] = row
    return list(found.items())


def _codes() -> tuple[str, ...]:
    return tuple(task.code for task in TASKS.values())


def _by_task(cells: Sequence[Scored]) -> list[str]:
    found = {one.task.code: one for one in cells}
    return [_short(found[code].primary.value) if code in found else "–" for code in _codes()]


def _aligned(results: Results, split: str, figures: Sequence[str]) -> list[str]:
    here = dict(zip(results.tasks(split), figures, strict=True))
    return [here.get(code, "–") for code in _codes()]


def _blank() -> list[str]:
    return [""] * len(_codes())


def improvement(mine: Sequence[float], its: Sequence[float]) -> float | None:
    """Return the mean of relative gains, as the paper compares models (section 6).

    Where the other has nothing there is no relative gain: such pairs are left out; None where no other is left.
    """
    gains = [one / other - 1 for one, other in zip(mine, its, strict=True) if other > 0]
    return float(np.mean(gains)) if gains else None


def _percent(mine: Sequence[Scored], its: Sequence[Scored]) -> str:
    gain = improvement([one.primary.value for one in mine], [one.primary.value for one in its])
    return "–" if gain is None else f"{100 * gain:+.1f}%"


def _said(found: Interval, places: int = 3) -> str:
    return f"{found.value:.{places}f} [{found.low:.{places}f}, {found.high:.{places}f}]"


def _signed(found: Interval) -> str:
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _short(value: float | None) -> str:
    if value is None:
        return "–"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def as_markdown(tables: Sequence[Table]) -> str:
    """Return tables as Markdown."""
    parts = []
    for table in tables:
        body = tabulate(table.rows, table.columns, tablefmt="github", disable_numparse=True)
        parts.append(f"### {table.heading}\n\n{body}\n" + (f"\n{table.note}\n" if table.note else ""))
    return "\n".join(parts)


def as_latex(tables: Sequence[Table]) -> str:
    """Return tables as LaTeX, each a table environment; they want the package booktabs."""
    parts = []
    for table in tables:
        body = tabulate(table.rows, table.columns, tablefmt="latex_booktabs", disable_numparse=True)
        body = body.replace("³", "$^3$").replace("−", "$-$").replace("–", "--")
        parts.append(f"\\begin{{table}}\n\\caption{{{_latex_caption(table)}}}\n{body}\n\\end{{table}}\n")
    return "\n".join(parts)


def _latex_caption(table: Table) -> str:
    caption = f"{table.title} (Table {table.number})" if table.number else table.title
    return re.sub(r"([&%$#_{}])", r"\\\1", caption)
