"""The printed summary of the ingest job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caslie_ray.dataset.summary import plural
from caslie_ray.monitoring.progress import clock
from caslie_ray.monitoring.summary_text import reject_lines
from caslie_ray.tasks import SPLITS

__all__ = ["summary_lines"]


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return the summary as lines."""
    splits: dict[str, int] = {}
    for counts in summary["samples_by_task"].values():
        for split, count in counts.items():
            splits[split] = splits.get(split, 0) + count
    by_split = " · ".join(f"{split} {splits[split]:,}" for split in SPLITS if split in splits)
    lines = [
        f"rows             {summary['rows']:,} in {plural(summary['files'], 'file')}",
        *_readings(summary),
        *_products(summary),
        *_samples(summary, by_split),
        f"images           {summary['images']:,} distinct · {summary['image_bytes'] / 1e6:.1f} MB",
        f"views            {summary['views']:,} · {summary['repeated_views']:,} repeats saved",
        f"rejected         {sum(summary['rejects'].values()):,}"
        + (f" · {summary['retryable_rejects']:,} tried again by the next run" if summary["retryable_rejects"] else ""),
        *reject_lines(summary["reject_reasons"]),
    ]
    idle = not (summary["parsed_rows"] or summary["fetched"] or summary["written_files"])
    did = "nothing to do" if idle else f"{summary['parsed_rows']:,} rows read · {summary['fetched']:,} images fetched"
    lines.append(f"this session     {did} · {clock(summary['seconds'])}")
    return lines


def _samples(summary: Mapping[str, Any], by_split: str) -> list[str]:
    if not summary["samples"] and summary.get("products"):
        return []
    unlabelled = summary.get("unlabelled", 0)
    return [
        f"samples          {summary['samples']:,}"
        + (f" · {by_split}" if by_split else "")
        + (f" · {unlabelled:,} without a true answer" if unlabelled else "")
    ]


def _products(summary: Mapping[str, Any]) -> list[str]:
    products, gone = summary.get("products", 0), summary.get("gone_products", 0)
    if not products and not gone:
        return []
    without = summary["products_without_image"]
    return [
        f"products         {products:,}"
        + (f" · {without:,} without an image" if without else "")
        + (f" · {gone:,} gone since an earlier export" if gone else "")
    ]


def _readings(summary: Mapping[str, Any]) -> list[str]:
    """Rows that were read in an unexpected way, and files that were left out."""
    lines = []
    for how, cell in summary.get("read_as", {}).items():
        more = f" and {cell['files'] - 1:,} more" if cell["files"] > 1 else ""
        lines.append(f"  {cell['rows']:>6,}  read as: {how} · {cell['names'][0]}{more}")
    if skipped := summary.get("run_files", 0):
        lines.append(f"  {skipped:>6,}  files of runs in the source folders left out")
    return lines
