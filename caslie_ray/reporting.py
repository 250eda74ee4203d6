"""Summaries as lines that a person reads at the end of a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from caslie_ray.context_window import describe_fit
from caslie_ray.dataset.summary import plural
from caslie_ray.evaluation import describe_left_out, names_of_sets
from caslie_ray.monitoring.progress import clock
from caslie_ray.tasks import SPLITS, TASKS

__all__ = ["show_caption", "show_evaluate", "show_fuse", "show_ingest", "show_train"]

_TELLING = 0.03  # accuracy of the verdicts alone above that of the most frequent answer
_ENOUGH = 50  # views; of fewer a figure says nothing, and an audit of 1% of a small run has fewer


def show_caption(summary: Mapping[str, Any]) -> list[str]:
    """Return the caption job's summary as lines; the shares by task are a row of the paper's Table 4."""
    used = summary["captions_used"]
    session = summary["this_session"]
    lines = [_views(summary)]
    codes = {name: task.code for name, task in TASKS.items()}
    shares = [f"{codes.get(name, name)} {cell['used_share']:.0%}" for name, cell in _in_order(used["by_task"])]
    if shares:
        lines.append(f"caption used     {used['share']:.1%} · " + " · ".join(shares))
    if truncated := summary.get("captions_truncated", 0):
        lines.append(f"truncated        {truncated:,} captions reached the captioner's max_new_tokens before their end")
    lines += _voters(summary)
    errors = sum(summary["errors"].values())
    lines.append(
        f"errors           {errors:,}"
        + (f" · {summary['to_be_asked_again']:,} to be asked again" if summary["to_be_asked_again"] else "")
    )
    lines += [f"  {count:>6,}  {reason}" for reason, count in list(summary["errors"].items())[:8]]
    lines += _rejects(summary["rejects"] or {})
    if not session["views_computed"]:
        lines.append(f"this session     nothing to do, no model loaded · {clock(session['seconds'])}")
        return lines
    each = session["seconds_an_instance"]
    lines += [
        f"this session     {session['views_computed']:,} views · {session['model_calls']:,} calls ·"
        f" {session['tokens']:,} tokens · {clock(session['seconds'])} · {session['views_per_second']:.1f} views/s",
        f"model time       {each['captioning'] or 0:.3f} s captioning and {each['voting'] or 0:.3f} s voting a view",
    ]
    return lines


def show_ingest(summary: Mapping[str, Any]) -> list[str]:
    """Return the ingest job's summary as lines."""
    splits: dict[str, int] = {}
    for counts in summary["samples_by_task"].values():
        for split, count in counts.items():
            splits[split] = splits.get(split, 0) + count
    by_split = " · ".join(f"{split} {splits[split]:,}" for split in SPLITS if split in splits)
    lines = [
        f"rows             {summary['rows']:,} in {plural(summary['files'], 'file')}",
        *_readings(summary),
        f"samples          {summary['samples']:,}" + (f" · {by_split}" if by_split else ""),
        f"images           {summary['images']:,} distinct · {summary['image_bytes'] / 1e6:.1f} MB",
        f"views            {summary['views']:,} · {summary['repeated_views']:,} repeats saved",
        f"rejected         {sum(summary['rejects'].values()):,}"
        + (f" · {summary['retryable_rejects']:,} tried again by the next run" if summary["retryable_rejects"] else ""),
        *_rejects(summary["reject_reasons"]),
    ]
    idle = not (summary["parsed_rows"] or summary["fetched"] or summary["written_files"])
    did = "nothing to do" if idle else f"{summary['parsed_rows']:,} rows read · {summary['fetched']:,} images fetched"
    lines.append(f"this session     {did} · {clock(summary['seconds'])}")
    return lines


def _readings(summary: Mapping[str, Any]) -> list[str]:
    """What was read in a way that a user may not expect, and what was left out."""
    lines = []
    for how, cell in summary.get("read_as", {}).items():
        more = f" and {cell['files'] - 1:,} more" if cell["files"] > 1 else ""
        lines.append(f"  {cell['rows']:>6,}  read as: {how} · {cell['names'][0]}{more}")
    if skipped := summary.get("run_files", 0):
        lines.append(f"  {skipped:>6,}  files of runs in the source folders left out")
    return lines


def _rejects(reasons: Mapping[str, Mapping[str, int]]) -> list[str]:
    return [
        f"  {count:>6,}  {kind}: {reason}"
        for kind, counts in reasons.items()
        for reason, count in list(counts.items())[:8]
    ]


def _views(summary: Mapping[str, Any]) -> str:
    repeats = summary["repeats_saved"]
    saved = f" · {repeats:,} repeats saved" if repeats is not None else ""
    return f"views            {summary['views']:,}{saved}"


def _voters(summary: Mapping[str, Any]) -> list[str]:
    if not summary["voters"]:
        return []
    rates = [
        f"{name} {cell['yes_rate']:.0%}" for name, cell in summary["voters"].items() if cell["yes_rate"] is not None
    ]
    kappa = summary["fleiss_kappa"]
    agreed = f" · Fleiss' κ {kappa:.2f}" if kappa is not None else ""
    lines = []
    if rates:
        lines.append(f"yes where all voted ({summary['all_voted']:,} views)  " + " · ".join(rates) + agreed)
    votes = sum(cell["asked"] for cell in summary["voters"].values())
    saved = summary["calls_saved_by_early_exit"]
    share = f" ({saved / (votes + saved):.0%} of all)" if votes + saved else ""
    lines.append(f"votes            {votes:,} · {saved:,} saved by early exit{share}")
    return lines


def show_fuse(summary: Mapping[str, Any]) -> list[str]:
    """Return the fuse job's summary as lines."""
    lines = []
    for variant, counts in summary["variants"].items():
        splits = [f"{split} {counts[split]:,}" for split in ("train", "validation", "ind", "ood") if counts.get(split)]
        lines.append(f"{variant:<16} {' · '.join(splits)} · {counts.get('captions', 0):,} captions used")
    if summary["views_without_caption_row"]:
        lines.append(f"views without a caption row: {summary['views_without_caption_row']:,}; run caption to its end")
    if fit := summary.get("fit"):
        lines.append(f"fit              {describe_fit(fit)}")
    lines.append(f"files written    {summary['files_written']}")
    return lines


def show_predict(summary: Mapping[str, Any]) -> list[str]:
    """Return the predict job's summary as lines."""
    lines = [f"model            {summary['model']} on {summary['engine']}"]
    for variant, counts in summary["failed"].items():
        unread = counts["failed"] / counts["answers"] if counts["answers"] else 0.0
        errors = f" · {counts['errors']:,} errors" if counts["errors"] else ""
        shortened = summary.get("captions_cut", {}).get(variant, 0)
        captions = f" · captions shortened in {shortened:,} prompts" if shortened else ""
        lines.append(f"{variant:<16} {counts['answers']:,} answers · {unread:.1%} cannot be read{errors}{captions}")
    now = summary["this_session"]
    said = f"{now['answers']:,} answers · {clock(now['seconds'])}" if now["model_calls"] else "nothing to do"
    return [*lines, f"this session     {said}"]


def show_train(summary: Mapping[str, Any]) -> list[str]:
    """Return the train job's summary as lines."""
    lines = []
    for model in summary["models"]:
        took = clock(model["seconds"]) if model["trained_now"] else "finished before, nothing to do"
        best = f" · best validation loss {model['best']['loss']:.3f}" if model["best"] else ""
        lines += [
            f"{model['model']:<16} {model['examples']:,} instructions · {model['steps']:,} steps · loss"
            f" {model['loss']:.3f}{best} · {took}",
            f"{'':<16} {model['folder']}",
        ]
    return lines


def _verdict_bits(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line on the tasks whose answers the verdicts alone predict, and none where there is no such task."""
    telling = [
        f"{code} {split} {cell['accuracy']['value']:.1%} (most frequent answer {cell['majority']['value']:.1%})"
        for code, splits in found.items()
        for split, cell in splits.items()
        if cell["gain"]["low"] > _TELLING
    ]
    return [f"verdicts alone   predict the answer: {' · '.join(telling)}"] if telling else []


def show_evaluate(summary: Mapping[str, Any]) -> list[str]:
    """Return the evaluate job's summary as lines; brackets hold 95% intervals."""
    figures = summary["figures"]
    lines = [f"views            {summary['views']:,} · {_percent(figures['used'])} used"]
    if truth := figures["truth"]:
        informative, verdicts = truth["captions"]["informative"], truth["verdicts"]
        shares = [f"{name} {cell['value']:.0%}" for name, cell in truth["usefulness"].items()]
        lines.append("pictures         " + " · ".join(shares))
        lines.append(f"asked attributes {_percent(informative['asked_and_right'])} named rightly, informative pictures")
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
            lines.append(f"without context  {_percent(free)} named rightly: {_percent(gap)} less")
        sets = names_of_sets([cell["voters"] for cell in verdicts["majorities"]])
        lines.append(f"verdicts         {_percent(verdicts['verdict']['balanced_accuracy'])} balanced accuracy")
        lines += [
            f"  {name:<14} {_percent(cell['balanced_accuracy'])} · mean voter {_percent(cell['mean_voter'])}"
            for name, cell in zip(sets, verdicts["majorities"], strict=True)
            if cell["balanced_accuracy"]["n"] >= _ENOUGH
        ]
        judged = verdicts["verdict"]
        lines.append(f"  helpful lost   {_percent(judged['helpful_lost'])}")
        lines.append(f"  unhelpful kept {_percent(judged['unhelpful_kept'])}")
    if summary["views_without_row"]:
        lines.append(f"without a row    {summary['views_without_row']:,} views: run caption to its end")
    agreement = figures["agreement"]
    if agreement and agreement["views"] >= _ENOUGH:
        lines.append(
            f"voters differ    {_percent(agreement['mean_pairwise_disagreement'])} of pairs,"
            f" {agreement['views']:,} views on which all voted"
        )
    lines += _verdict_bits(summary.get("verdict_bits", {}))
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


def _ablation(model: str, splits: Mapping[str, Any]) -> list[str]:
    """The answers of one model: a table a split, then by how much `caslie` exceeds the other variants."""
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


def _in_order(by_task: Mapping[str, Any]) -> list[tuple[str, Any]]:
    order = {name: number for number, name in enumerate(TASKS)}
    return sorted(by_task.items(), key=lambda item: order.get(item[0], len(order)))
