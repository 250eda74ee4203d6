"""Lines that the printed summaries of several jobs share."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["reject_lines"]

_REASONS = 8


def reject_lines(reasons: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a line per kind of reject and reason, up to eight reasons per kind, in the given order."""
    return [
        f"  {count:>6,}  {kind}: {reason}"
        for kind, counts in reasons.items()
        for reason, count in list(counts.items())[:_REASONS]
    ]
