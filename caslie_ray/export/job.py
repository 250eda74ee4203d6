"""The job `export`: captions out by the shop's own product ids."""

from __future__ import annotations

from caslie_ray.cli import COMPLETE, UNFINISHED, Arguments
from caslie_ray.export._export import export
from caslie_ray.export._plan import plan_export
from caslie_ray.export.options import read_options
from caslie_ray.export.summary_lines import summary_lines

__all__ = ["export_job"]


def export_job(arguments: Arguments) -> int:
    """Write the captions of a catalogue; unfinished if some of its views are not captioned yet.

    Raises:
        JobError: the run has no products, or the target is in the way of something else.
        ProfileError: the options do not fit each other, or the run.
        RunError: a file is damaged, or a store refuses.
    """
    options = read_options(arguments.options)
    if arguments.plan:
        _show(plan_export(arguments.run, options))
        return COMPLETE
    summary = export(arguments.run, options, quiet=arguments.quiet)
    _show(summary_lines(summary))
    return UNFINISHED if summary["missing"] else COMPLETE


def _show(lines: list[str]) -> None:
    print("\n".join(["", "export", *(f"  {line}" for line in lines)]))
