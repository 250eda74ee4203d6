"""The export: a join of `products` with `captions` on the view id.

```
captions files      ─▶ by view id ─┐
                                   ├▶ join ▶ by group of products ▶ a part per partition ▶ the target
products partitions ─▶ by view id ─┘
```

Each arrow is a task that reads files and writes one; files that an earlier attempt wrote are not written again. A small
run makes the same steps in the driver, without Ray. The parts are in the format of the target already: the last step
copies them, in the order of partitions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from caslie_ray.cluster.partition_map import map_partitions
from caslie_ray.export._card import card, lineup_names
from caslie_ray.export._counts import Counts
from caslie_ray.export._delivery import StoredPart, deliver_file, deliver_folder
from caslie_ray.export._inputs import Inputs, find_inputs
from caslie_ray.export._join import join_bucket, send_captions, send_requests
from caslie_ray.export._parquet_format import DATASET
from caslie_ray.export._parts import known_counts, write_parts
from caslie_ray.export._workspace import FOLDER, Part
from caslie_ray.export.options import ExportOptions
from caslie_ray.monitoring.progress import Progress
from caslie_ray.storage.run import Run

__all__ = ["export"]

_S = TypeVar("_S")
_T = TypeVar("_T")


def export(run: Run, options: ExportOptions, *, quiet: bool = False) -> dict[str, Any]:
    """Write the captions of a catalogue by product id; return the job's summary.

    An export that was killed resumes. The driver has counts and names of files.

    Raises:
        JobError: the run has no products, or the target is in the way of something else.
        ProfileError: the options do not fit each other, or the run.
        RunError: a file is damaged, or a store refuses.
    """
    started = time.monotonic()
    inputs = find_inputs(run, options)
    counts = _Job(inputs, quiet).execute()
    summary = {
        "job": "export",
        "run": run.label,
        "to": inputs.target.place.label,
        "format": inputs.target.format,
        "contexts": list(inputs.selection.contexts) or None,
        "all": options.every,
        **counts.as_json(),
        "seconds": round(time.monotonic() - started, 2),
    }
    run.write_json("summary/export.json", summary)
    return summary


class _Job:
    def __init__(self, inputs: Inputs, quiet: bool) -> None:
        self._inputs, self._quiet = inputs, quiet
        self._run, self._space = inputs.run, inputs.space

    def execute(self) -> Counts:
        """Make the steps that are missing, and write the target; return the counts of all products."""
        self._forget_others()
        with Progress("export", self._inputs.partitions, "partitions", quiet=self._quiet) as progress:
            found = sorted(self._parts(progress).items())
            total = Counts()
            for _, counts in found:
                total.add(counts)
            stored = [StoredPart(self._space.part(name), counts.bytes) for name, counts in found if counts.rows]
            self._deliver(stored, total, progress)
        self._run.delete_folder(self._run.path(FOLDER))
        return total

    def _parts(self, progress: Progress) -> dict[str, Counts]:
        """Write the parts that are missing; return the counts of all by partition."""
        space, selection, form = self._space, self._inputs.selection, self._inputs.target.format
        existing = space.existing()
        counts: dict[str, Counts] = {}
        attempted = self._inputs.products if existing else []
        for known in self._map(lambda parts: known_counts(space, parts, existing), attempted):
            counts |= known
        progress.add(len(counts))
        missing = [[part for part in parts if part.name not in counts] for parts in self._inputs.products]
        todo = [(n, parts) for n, parts in enumerate(missing) if parts]
        if todo:
            self._join(existing, progress)

            def write(item: tuple[int, list[Part]]) -> dict[str, Counts]:
                return write_parts(space, *item, selection, form)

            for written in self._map(write, todo):
                counts |= written
                progress.add(len(written))
        return counts

    def _join(self, existing: set[str], progress: Progress) -> None:
        """Bring captions to the groups of products that ask for them."""
        space, selection = self._space, self._inputs.selection
        sends = [(n, files) for n, files in enumerate(self._inputs.captions) if space.captions(n) not in existing]
        self._step("captions", lambda item: send_captions(space, *item), sends, progress)
        requests = [(n, parts) for n, parts in enumerate(self._inputs.products) if space.requests(n) not in existing]
        self._step("products", lambda item: send_requests(space, *item, selection), requests, progress)
        joins = [bucket for bucket in range(space.buckets) if space.joined(bucket) not in existing]
        self._step("join", lambda bucket: join_bucket(space, bucket), joins, progress)

    def _deliver(self, parts: Sequence[StoredPart], counts: Counts, progress: Progress) -> None:
        target = self._inputs.target

        def tick(done: int) -> None:
            progress.tick(f"writing {done}/{len(parts)}")

        if target.is_file:
            deliver_file(self._run, target, parts, tick)
            return
        deliver_folder(self._run, target, parts, tick, distributed=self._inputs.distributed)
        if target.format == "dataset":
            text = card(counts, DATASET.schema, lineup_names(self._run), every=self._inputs.selection.every)
            target.place.put(target.place.path("README.md"), text.encode())

    def _step(self, name: str, function: Callable[[_S], None], items: Sequence[_S], progress: Progress) -> None:
        for n, _ in enumerate(self._map(function, items), 1):
            progress.tick(f"{name} {n}/{len(items)}")

    def _map(self, function: Callable[[_S], _T], items: Sequence[_S]) -> Iterator[_T]:
        return map_partitions(function, items, distributed=self._inputs.distributed)

    def _forget_others(self) -> None:
        """Delete the working files of attempts with other inputs."""
        own = self._run.path(self._space.folder)
        for info in self._run.listed(self._run.path(FOLDER)):
            if info.path != own:
                self._run.delete_folder(info.path)
