"""The printed summary of the evaluate job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from caslie_ray.evaluation.answers.reading import describe_left_out
from caslie_ray.evaluation.captions.summary import names_of_sets
from caslie_ray.monitoring.progress import clock
from caslie_ray.tasks import TASKS

__all__ = ["summary_lines"]

_NOTABLE_GAIN = 0.03  # accuracy of the verdicts alone above that of the most frequent answer
_MIN_VIEWS = 50  # figures of fewer views are not printed, such as those of an audit of 1% of a small run


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return the summary as lines; brackets are 95% intervals."""
    figures = summary["figures"]
    lines = [f"views            {summary['views']:,} · {_percent(figures['used'])} used"]
    if figures["truth"]:
        lines += _truth(figures["truth"])
    if summary["views_without_row"]:
        lines.append(f"without a row    {summary['views_without_row']:,} views: run caption to its end")
    agreement = figures["agreement"]
    if agreement and agreement["views"] >= _MIN_VIEWS:
        lines.append(
            f"voters differ    {_percent(agreement['mean_pairwise_disagreement'])} of pairs,"
            f" {agreement['views']:,} views on which all voted"
        )
    lines += verdict_bit_lines(summary.get("verdict_bits", {}))
    if left_out := summary.get("not_measured"):
        lines.append(
            f"not measured     {describe_left_out(left_out)}: their true answer is none of their options or labels"
        )
    if "tables" in summary:
        lines.append(f"tables           {' · '.join(summary['tables'])}")
    lines += [f"page             {summary['page']}", f"this session     {clock(summary['seconds'])}"]
    for model, splits in summary.get("results", {}).items():
        lines += _ablation(model, splits)
    return lines


def _truth(truth: Mapping[str, Any]) -> list[str]:
    lines = []
    informative, verdicts = truth["captions"]["informative"], truth["verdicts"]
    shares = [f"{name} {cell['value']:.0%}" for name, cell in truth["usefulness"].items()]
    lines.append("images           " + " · ".join(shares))
    lines.append(f"asked attributes {_percent(informative['asked_and_right'])} named correctly, informative images")
    named = [
        f"{name} {cell['value']:.0%}"
        for name, cell in informative["asked_and_right_by_attribute"].items()
        if cell["value"] is not None
    ]
    lines.append("  of each        " + " · ".join(named))
    hollow = truth["captions"]["placeholder"]["described_as_a_product"]
    lines.append(f"placeholders     {_percent(hollow)} described as a product")
    if context := truth["context"]:
        free, gap = context["free"]["asked_and_right"], context["gap"]
        lines.append(f"without context  {_percent(free)} named correctly: {_percent(gap)} less")
    sets = names_of_sets([cell["voters"] for cell in verdicts["majorities"]])
    lines.append(f"verdicts         {_percent(verdicts['verdict']['balanced_accuracy'])} balanced accuracy")
    lines += [
        f"  {name:<14} {_percent(cell['balanced_accuracy'])} · mean voter {_percent(cell['mean_voter'])}"
        for name, cell in zip(sets, verdicts["majorities"], strict=True)
        if cell["balanced_accuracy"]["n"] >= _MIN_VIEWS
    ]
    judged = verdicts["verdict"]
    lines.append(f"  helpful lost   {_percent(judged['helpful_lost'])}")
    lines.append(f"  unhelpful kept {_percent(judged['unhelpful_kept'])}")
    return lines


def verdict_bit_lines(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line on the tasks whose answers the verdicts alone predict; none if there is no such task."""
    notable = [
        f"{code} {split} {cell['accuracy']['value']:.1%} (most frequent answer {cell['majority']['value']:.1%})"
        for code, splits in found.items()
        for split, cell in splits.items()
        if cell["gain"]["low"] > _NOTABLE_GAIN
    ]
    return [f"verdicts alone   predict the answer: {' · '.join(notable)}"] if notable else []


def _ablation(model: str, splits: Mapping[str, Any]) -> list[str]:
    """Return a table per split of one model's results, with how much `caslie` exceeds the other variants."""
    lines: list[str] = []
    for split, found in splits.items():
        means, gaps = found["mean_primary"], found["caslie_exceeds"]
        codes = [task.code for task in TASKS.values() if any(task.code in cell["by_task"] for cell in means.values())]
        rows = []
        for variant, cell in means.items():
            gap = gaps.get(variant)
            rows.append(
                [
                    variant,
                    *(f"{cell['by_task'][code]:.3f}" if code in cell["by_task"] else "–" for code in codes),
                    f"{cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]",
                    f"{gap['value']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]" if gap else "",
                    f"{cell['failed'] / cell['answers']:.1%}",
                ]
            )
        heads = ["variant", *codes, "mean [95%]", "caslie exceeds by", "failed"]
        lines += ["", f"{model}, {split}: primary metric of each task (paper, Table 6)"]
        lines += tabulate(rows, heads, tablefmt="simple", disable_numparse=True).splitlines()
    return lines


def _percent(cell: Mapping[str, Any]) -> str:
    if cell["value"] is None:
        return "–"
    return f"{cell['value']:.1%} [{cell['low']:.1%}, {cell['high']:.1%}]"
