"""The prompts of the first rows of sources, before anything is fetched or written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from caslie_ray.dataset._catalogue import CatalogueSettings
from caslie_ray.dataset._columns import Columns
from caslie_ray.dataset._limits import Limits
from caslie_ray.dataset._reading import Record, read_source
from caslie_ray.dataset._sources import find_sources
from caslie_ray.profiles import Profile
from caslie_ray.storage.run import Run
from caslie_ray.tasks import TASKS, RowError, Task, ViewPrompts, find_task

__all__ = ["preview_prompts"]


def preview_prompts(
    run: Run, sources: Sequence[str], profile: Profile, rows: int, tasks: Mapping[str, Task] | None = None
) -> list[str]:
    """Return the prompts of the first rows of each source file, as lines.

    Args:
        run: the run that the sources are for.
        sources: as in `ingest`.
        profile: its parts `ingest` and `contexts` count.
        rows: how many rows of a file are shown.
        tasks: the tasks to read; those that are installed where None.

    Raises:
        SourceError: a source is not there.
        ProfileError: a context cannot be used.
    """
    settings = profile.ingest
    columns, limits, catalogue = Columns.of(settings.keys), Limits.of(settings), CatalogueSettings.of(profile)
    lines: list[str] = []
    for file in find_sources(sources, run)[0]:
        for record in islice(read_source(file, columns, settings.encoding, limits, catalogue), rows):
            lines += _shown(record, catalogue, TASKS if tasks is None else tasks)
    return lines


def _shown(record: Record, catalogue: CatalogueSettings, tasks: Mapping[str, Task]) -> Iterator[str]:
    try:
        prompts = list(_prompts(record, catalogue, tasks))
    except RowError as error:
        yield f"{record.location}: rejected: {error}"
        return
    for name, one in prompts:
        yield f"{record.location}: {name}"
        yield f"  captioner  {one.caption.text}"
        yield f"  voters     {one.quality.text}"


def _prompts(
    record: Record, catalogue: CatalogueSettings, tasks: Mapping[str, Task]
) -> Iterator[tuple[str, ViewPrompts]]:
    if (product := record.product) is not None:
        for context in catalogue.contexts:
            images = len(product.images[: context.most_images])
            yield (
                f"product {product.product_id}, context {context.name}, {images} of {len(product.images)} images",
                context.prompts(dict(product.texts)),
            )
        return
    if record.row is None:
        raise RowError(str(record.reason))
    found = find_task(record.row.get("task"))
    task = tasks.get(found.name, found)
    for place, prompts in enumerate(task.view_prompts(task.parse(record.row)), 1):
        yield f"{task.name}, image {place}", prompts
