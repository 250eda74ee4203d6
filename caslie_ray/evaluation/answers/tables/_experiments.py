"""Tables A3 and A4, and what the verdicts alone predict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from caslie_ray.evaluation.answers.metrics import mean_of
from caslie_ray.evaluation.answers.results import VARIANT_NAMES, Results
from caslie_ray.evaluation.answers.tables import _paper as paper
from caslie_ray.evaluation.answers.tables._cells import OURS, PAPERS, SPLIT_TITLES, by_task, codes, short, with_interval
from caslie_ray.evaluation.answers.tables._table import Table
from caslie_ray.fusion import CONTEXT_FREE
from caslie_ray.intervals import Interval

__all__ = ["captioners", "verdict_bits", "voters"]


def captioners(results: Results) -> Table | None:
    """Return Table A3; None without captions without context."""
    if CONTEXT_FREE not in results.variants:
        return None
    rows = [
        (
            PAPERS,
            ", ".join(filter(None, (row["setting"], row["captioner"]))),
            *(short(row.get(code)) for code in codes()),
            "",
        )
        for row in paper.rows_of("A3")
    ]
    rows += _ours(results, ("text", CONTEXT_FREE, "caslie"), {"caslie": "with context"})
    return Table(
        "A3", "Captions with and without their context, IND", ("", "captions", *codes(), "mean [95%]"), tuple(rows)
    )


def voters(results: Results) -> Table | None:
    """Return Table A4; None without experiments on sets of voters."""
    sets = [name for name in results.variants if name.startswith("voters-")]
    if not sets:
        return None
    rows = [(PAPERS, row["voters"], *(short(row.get(code)) for code in codes()), "") for row in paper.rows_of("A4")]
    rows += _ours(results, ("uia", *sets, "caslie"), {"caslie": "the run's lineup", **{name: name for name in sets}})
    return Table("A4", "Who decides on captions, IND", ("", "voters", *codes(), "mean [95%]"), tuple(rows))


def _ours(results: Results, variants: Iterable[str], names: Mapping[str, str]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for model in results.models:
        for variant in variants:
            cells = results.cells(model, variant, "ind")
            if cells:
                name = names.get(variant) or VARIANT_NAMES[variant]
                rows.append((OURS, f"{model} {name}", *by_task(cells), with_interval(mean_of(cells))))
    return rows


def verdict_bits(results: Results) -> list[Table]:
    """Return the table of what the verdicts alone predict; none if that was not counted."""
    rows = [
        (
            OURS,
            f"{code} {SPLIT_TITLES[split]}",
            *(with_interval(Interval(**found[name])) for name in ("majority", "accuracy", "gain")),
            with_interval(Interval(**found["mutual_information"]), 4),
            f"{found['n']:,}",
        )
        for code, splits in results.of_bits.items()
        for split, found in splits.items()
    ]
    if not rows:
        return []
    return [
        Table(
            "", "What the verdicts alone predict",
            ("", "task", "most frequent answer", "verdicts", "difference", "mutual information", "samples"),
            tuple(rows),
            "Accuracy of the most frequent answer per pattern of verdicts in training, without text and captions. Where"
            " the difference is large, models learn the answer from which captions are there, not from what these say."
            " The mutual information of verdicts and answer is in bits.",
        )
    ]  # fmt: skip
