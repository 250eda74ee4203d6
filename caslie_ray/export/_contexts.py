"""Which contexts are exported."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from caslie_ray.export.options import ExportOptions
from caslie_ray.profiles import ProfileError

__all__ = ["chosen_contexts"]

_ALT_TEXT = "alt_text"


def chosen_contexts(
    options: ExportOptions, form: str, find_contexts: Callable[[], Iterable[set[str]]]
) -> tuple[str, ...]:
    """Return the contexts to export, in order; empty: all of the run.

    Args:
        options: of the export.
        form: its format.
        find_contexts: reads the contexts of the run; called only where they are needed.

    Raises:
        ProfileError: a context is not in the run, or the format wants one and several are possible.
    """
    one_only = form == "shopify"
    if not options.contexts and not one_only:
        return ()
    found = sorted(set[str]().union(*find_contexts()))
    listed = ", ".join(found) or "none"
    for name in options.contexts:
        if name not in found:
            raise ProfileError(f"--context {name}: the run has no such context; there are: {listed}")
    possible = list(options.contexts) or ([_ALT_TEXT] if _ALT_TEXT in found else found)
    if one_only and len(possible) > 1:
        raise ProfileError(
            f"--format {form} writes one text per image, and so one context; choose one of {listed} with --context"
        )
    return tuple(sorted(possible))
