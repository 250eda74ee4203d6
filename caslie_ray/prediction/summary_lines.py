"""The printed summary of the predict job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caslie_ray.monitoring.progress import clock

__all__ = ["summary_lines"]


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return the summary as lines."""
    lines = [f"model            {summary['model']} on {summary['engine']}"]
    for variant, counts in summary["failed"].items():
        unread = counts["failed"] / counts["answers"] if counts["answers"] else 0.0
        errors = f" · {counts['errors']:,} errors" if counts["errors"] else ""
        shortened = summary.get("captions_cut", {}).get(variant, 0)
        captions = f" · captions shortened in {shortened:,} prompts" if shortened else ""
        lines.append(f"{variant:<16} {counts['answers']:,} answers · {unread:.1%} cannot be parsed{errors}{captions}")
    now = summary["this_session"]
    work = f"{now['answers']:,} answers · {clock(now['seconds'])}" if now["model_calls"] else "nothing to do"
    return [*lines, f"this session     {work}"]
