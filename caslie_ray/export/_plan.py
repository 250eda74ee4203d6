"""What `export` would write; nothing is written."""

from __future__ import annotations

from caslie_ray.export._inputs import find_inputs
from caslie_ray.export.options import ExportOptions
from caslie_ray.storage.run import Run

__all__ = ["plan_export"]


def plan_export(run: Run, options: ExportOptions) -> list[str]:
    """Return what `export` would write, as lines.

    Raises:
        JobError: the run has no products, or the target is in the way of something else.
        ProfileError: the options do not fit each other, or the run.
        RunError: a file is damaged, or a store refuses.
    """
    inputs = find_inputs(run, options)
    products = sum(run.count_rows(path) for group in inputs.products for part in group for path in part.files)
    captions = sum(run.count_rows(path) for group in inputs.captions for path in group)
    files = "one" if inputs.target.is_file else f"up to {inputs.partitions:,}, one per partition with rows"
    contexts = inputs.selection.contexts
    return [
        f"products      {products:,} rows",
        f"captions      {captions:,} rows",
        f"rows          {'every view' if options.every else 'captions that won'}",
        f"contexts      {', '.join(contexts) or 'all'}",
        f"format        {inputs.target.format}",
        f"files         {files}",
        f"to            {inputs.target.place.label}",
        "models        none",
    ]
