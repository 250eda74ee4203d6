"""What an export reads and writes: found once, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from caslie_ray import __version__
from caslie_ray.cluster.distribution import is_large
from caslie_ray.cluster.partition_map import map_partitions
from caslie_ray.errors import JobError
from caslie_ray.export._contexts import chosen_contexts
from caslie_ray.export._products import Selection, contexts_in
from caslie_ray.export._target import Target, target_of
from caslie_ray.export._workspace import Part, Workspace, grouped
from caslie_ray.export.options import ExportOptions
from caslie_ray.hashing import content_id
from caslie_ray.storage.run import Run

__all__ = ["Inputs", "find_inputs"]


@dataclass(frozen=True)
class Inputs:
    """What an export reads and writes.

    Attributes:
        run: the run.
        target: where the export goes.
        selection: what is exported.
        captions: files of `captions` in groups, in the order of writing: of two rows of one view the later one counts.
        products: partitions of `products` in groups, by name.
        space: the working files.
        distributed: whether the work is worth Ray.
    """

    run: Run
    target: Target
    selection: Selection
    captions: list[list[str]]
    products: list[list[Part]]
    space: Workspace
    distributed: bool

    @property
    def partitions(self) -> int:
        """Number of partitions of `products`."""
        return sum(map(len, self.products))


def find_inputs(run: Run, options: ExportOptions) -> Inputs:
    """Return what an export reads and writes.

    Raises:
        JobError: the run has no products, or the target is in the way of something else.
        ProfileError: the options do not fit each other, or the run.
        RunError: a file is damaged, or a store refuses.
    """
    target = target_of(options, run)
    products, captions = run.by_partition("products"), run.files("captions")
    if not products:
        raise JobError(
            f"{run.label} has no products: export needs a run whose source is a catalogue, such as a CSV file or a"
            " feed, which ingest reads. Runs of the seven tasks have their captions in the table captions"
        )
    paths = sorted(path for files in products.values() for path in files)
    folders = sorted({path.rpartition("/")[0] for path in (*paths, *captions)})
    infos = {info.path: info for folder in folders for info in run.listed(folder)}
    sizes = {path: info.size or 0 for path, info in infos.items()}
    parts = [Part(name, files) for name, files in sorted(products.items())]
    product_groups = grouped(parts, [sum(sizes[path] for path in part.files) for part in parts])
    caption_groups = grouped(captions, [sizes[path] for path in captions])
    distributed = is_large(run, (*captions, *paths))

    def find_contexts() -> Iterator[set[str]]:
        return map_partitions(lambda group: _contexts_of(run, group), product_groups, distributed=distributed)

    selection = Selection(chosen_contexts(options, target.format, find_contexts), options.every)
    files = [f"{path.removeprefix(run.root)} {sizes[path]} {infos[path].mtime_ns}" for path in (*paths, *captions)]
    key = content_id(__version__, target.format, repr(selection), *files)[:16]
    space = Workspace(run, key, len(caption_groups), len(product_groups))
    return Inputs(run, target, selection, caption_groups, product_groups, space, distributed)


def _contexts_of(run: Run, group: list[Part]) -> set[str]:
    return set[str]().union(*(contexts_in(run, part) for part in group))
