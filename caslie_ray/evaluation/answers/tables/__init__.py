"""Results in the layout of the paper's tables, with the paper's own figures for comparison."""

from __future__ import annotations

from dataclasses import replace

from caslie_ray.evaluation.answers.results import Results
from caslie_ray.evaluation.answers.tables import _paper as paper
from caslie_ray.evaluation.answers.tables._ablation import ablation
from caslie_ray.evaluation.answers.tables._cells import PAPERS, codes, improvement, left_out_note
from caslie_ray.evaluation.answers.tables._details import details
from caslie_ray.evaluation.answers.tables._experiments import captioners, verdict_bits, voters
from caslie_ray.evaluation.answers.tables._models import generalist, overall
from caslie_ray.evaluation.answers.tables._table import Table, as_latex, as_markdown

__all__ = ["Table", "as_latex", "as_markdown", "improvement", "tables_of"]


def tables_of(results: Results) -> list[Table]:
    """Return all tables for which there are results."""
    made = [overall(results), generalist(results), ablation(results), captioners(results), voters(results)]
    with_notes = [_with_notes(table, results) for table in made if table is not None]
    return [*with_notes, *verdict_bits(results), *details(results)]


def _with_notes(table: Table, results: Results) -> Table:
    """Add notes on samples left out, and on tasks that the paper's means do not include."""
    notes = [table.note, left_out_note(results.left_out)]
    own = [code for code in codes() if code not in paper.numbers()]
    if own and any(row[0] == PAPERS for row in table.rows):
        notes.append(f"The paper has no figures of {', '.join(own)}; its means do not include them.")
    return replace(table, note=" ".join(filter(None, notes)))
