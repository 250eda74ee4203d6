"""The printed summary of the caption job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caslie_ray.monitoring.progress import clock
from caslie_ray.monitoring.summary_text import reject_lines
from caslie_ray.tasks import TASKS, short_name

__all__ = ["summary_lines"]


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return the summary as printed lines; the shares by task are a row of the paper's Table 4."""
    used = summary["captions_used"]
    session = summary["this_session"]
    lines = [_views(summary)]
    shares = [f"{short_name(name)} {cell['used_share']:.0%}" for name, cell in _in_order(used["by_task"])]
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
    lines += reject_lines(summary["rejects"] or {})
    if not session["views_computed"]:
        lines.append(f"this session     nothing to do, no model loaded · {clock(session['seconds'])}")
        return lines
    each = session["seconds_an_instance"]
    lines += [
        f"this session     {session['views_computed']:,} views · {session['model_calls']:,} calls ·"
        f" {session['tokens']:,} tokens · {clock(session['seconds'])} · {session['views_per_second']:.1f} views/s",
        f"model time       {each['captioning'] or 0:.3f} s captioning and {each['voting'] or 0:.3f} s voting per view",
    ]
    return lines


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


def _in_order(by_task: Mapping[str, Any]) -> list[tuple[str, Any]]:
    order = {name: number for number, name in enumerate(TASKS)}
    return sorted(by_task.items(), key=lambda item: order.get(item[0], len(order)))
