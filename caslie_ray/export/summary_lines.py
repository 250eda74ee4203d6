"""The printed summary of the export job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caslie_ray.monitoring.progress import clock

__all__ = ["summary_lines"]


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return the summary as lines."""
    products = [f"{summary['products']:,}"]
    if summary["without_image"]:
        products.append(f"{summary['without_image']:,} without an image")
    if summary["gone"]:
        products.append(f"{summary['gone']:,} more are no longer in the catalogue")
    lines = [
        f"products      {' · '.join(products)}",
        f"captions      {summary['won']:,} won · {summary['lost']:,} lost · {summary['failed']:,} failed",
    ]
    if summary["missing"]:
        lines.append(
            f"missing       {summary['missing']:,} views are not captioned yet: run caption, then export again"
        )
    contexts = summary["contexts"]
    return [
        *lines,
        *([f"contexts      {', '.join(contexts)}"] if contexts else []),
        f"written       {summary['rows']:,} rows · {summary['format']} · {clock(summary['seconds'])}",
        f"to            {summary['to']}",
    ]
