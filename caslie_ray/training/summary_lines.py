"""The printed summary of the train job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from caslie_ray.monitoring.progress import clock

__all__ = ["summary_lines"]


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """Return the summary as lines."""
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
