"""The printed summary of the fuse job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caslie_ray.context_window import describe_fit
from caslie_ray.tasks import SPLITS

__all__ = ["summary_lines"]


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return the summary as lines."""
    lines = []
    for variant, counts in summary["variants"].items():
        splits = [f"{split} {counts[split]:,}" for split in SPLITS if counts.get(split)]
        lines.append(f"{variant:<16} {' · '.join(splits)} · {counts.get('captions', 0):,} captions used")
    if summary["views_without_caption_row"]:
        lines.append(f"views without a caption row: {summary['views_without_caption_row']:,}; run caption to its end")
    if fit := summary.get("fit"):
        lines.append(f"fit              {describe_fit(fit)}")
    lines.append(f"files written    {summary['files_written']}")
    return lines
