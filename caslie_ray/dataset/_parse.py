"""Rows of sources become samples with their prompts and references, in chunks."""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import caslie_ray.catalogue
import caslie_ray.hashing
import caslie_ray.imaging
import caslie_ray.prompts
import caslie_ray.tasks
from caslie_ray.catalogue.contexts import Context
from caslie_ray.catalogue.product import Product
from caslie_ray.dataset._catalogue import CatalogueSettings
from caslie_ray.dataset._columns import Columns
from caslie_ray.dataset._fetching import Outcome, try_decode
from caslie_ray.dataset._intermediate import FOLDER, PARSED, fold
from caslie_ray.dataset._limits import DEFAULT, Limits
from caslie_ray.dataset._reading import Record, read_source
from caslie_ray.dataset._references import Reference, read_reference
from caslie_ray.dataset._references_ledger import write_fetched
from caslie_ray.dataset._roots import Roots, given_roots, roots_of
from caslie_ray.dataset._sources import SourceFile
from caslie_ray.hashing import content_id
from caslie_ray.profiles import ImageSettings, IngestSettings
from caslie_ray.prompts import Prompt
from caslie_ray.storage.run import Run
from caslie_ray.tasks import RowError, Task, ViewPrompts, as_text, find_task

__all__ = ["Chunk", "ParsedChunk", "Parser", "chunks", "parse_key"]

_CHUNK_BYTES = 32 << 20
_ID_CHARACTERS = 1000


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one source file that are parsed together.

    Attributes:
        file: the source file.
        folder: where its parsed rows are kept, below ``RUN/ingest``.
        index: which chunk of the file this is, from 0.
        records: the pickled records.
    """

    file: SourceFile
    folder: str
    index: int
    records: tuple[bytes, ...]


class ParsedChunk(NamedTuple):
    """Counts of a parsed chunk.

    Attributes:
        folder: where its rows are kept, below ``RUN/ingest``.
        rows: how many they are.
        references: how many references they have.
        limited: whether some could not be read because of a limit of the profile.
    """

    folder: str
    rows: int
    references: int
    limited: bool


def parse_key(
    file: SourceFile,
    settings: IngestSettings,
    images: ImageSettings,
    tasks: Mapping[str, Task],
    catalogue: CatalogueSettings | None,
) -> str:
    """Return a hash of everything that the parsed rows of a file depend on: content, settings, tasks, and code.

    Limits are not part of it: files within the limits need not be read again when these change (`Cache`).
    """
    spelled = [
        (task.name, task.code, task.instruction, task.caption_template, task.quality_template, task.labels)
        for task in tasks.values()
    ]
    more = catalogue.identity if catalogue is not None else None
    options = json.dumps([settings.chunk_rows, settings.encoding, settings.keys.model_dump(), spelled, more])
    roots = roots_of(file.path, file.source, images.root is not None, given_roots(images))
    places = [root.identity for root in (roots.base, *roots.allowed)]
    return content_id(file.name, file.version, options, json.dumps(places), *_code(tasks))


def _code(tasks: Mapping[str, Task]) -> list[bytes]:
    """Return the source code that reads rows, decodes images and writes prompts: a change invalidates parsed rows."""
    files = {Path(caslie_ray.hashing.__file__), Path(caslie_ray.prompts.__file__)}
    packages = (caslie_ray.imaging, caslie_ray.tasks, caslie_ray.catalogue)
    for module in (__file__, *(str(package.__file__) for package in packages)):
        files |= set(Path(module).parent.glob("*.py"))
    for task in tasks.values():
        with suppress(TypeError, OSError):  # a class that was defined interactively has no file
            files.add(Path(inspect.getfile(type(task))))
    return [file.read_bytes() for file in sorted(files) if file.is_file()]


def chunks(
    job: tuple[SourceFile, str],
    columns: Columns,
    chunk_rows: int,
    encoding: str | None = None,
    limits: Limits = DEFAULT,
    catalogue: CatalogueSettings | None = None,
) -> Iterator[Chunk]:
    """Divide the records of a source file into chunks, by rows and bytes."""
    file, folder = job
    records: list[bytes] = []
    size = index = 0
    for record in read_source(file, columns, encoding, limits, catalogue):
        records.append(_pickled(record))
        size += len(records[-1])
        if len(records) >= chunk_rows or size >= _CHUNK_BYTES:
            yield Chunk(file, folder, index, tuple(records))
            records, size, index = [], 0, index + 1
    if records:
        yield Chunk(file, folder, index, tuple(records))


def _pickled(record: Record) -> bytes:
    try:
        return pickle.dumps(record)
    except RecursionError:
        reason = "invalid row: nested too deeply; flatten it"
        return pickle.dumps(Record(record.number, record.location, None, reason))


class Parser:
    """Parses chunks: writes their rows, and decodes the images inside them.

    Args:
        run: where they are written.
        images: limits on images, and the root of relative references.
        tasks: the tasks as the job knows them.
        contexts: what images of products are captioned for.
    """

    def __init__(
        self, run: Run, images: ImageSettings, tasks: Mapping[str, Task], contexts: Sequence[Context] = ()
    ) -> None:
        self._run = run
        self._images = images
        self._given = given_roots(images)
        self._tasks = dict(tasks)
        self._contexts = tuple(contexts)

    def __call__(self, chunk: Chunk) -> ParsedChunk:
        """Write the chunk's parsed rows."""
        file = chunk.file
        roots = roots_of(file.path, file.source, self._images.root is not None, self._given)
        decoded: dict[str, Outcome] = {}
        rows: list[dict[str, object]] = []
        limited = False
        for pickled in chunk.records:
            record: Record = pickle.loads(pickled)
            limited = limited or record.limited
            rows.append(self._row(record, roots, decoded))
        # Images first: a parsed row implies that its images are in the run.
        write_fetched(self._run, self._images, list(decoded.items()))
        self._run.write(f"{FOLDER}/{chunk.folder}", f"{chunk.index:06d}", fold(rows, PARSED), PARSED)
        references = sum(len(found) for row in rows if isinstance(found := row.get("locators"), list))
        return ParsedChunk(chunk.folder, len(rows), references, limited)

    def _row(self, record: Record, roots: Roots, decoded: dict[str, Outcome]) -> dict[str, object]:
        product = record.product
        source_id = _source_id((record.row or {}).get("id")) if product is None else product.product_id
        row: dict[str, object] = {"number": record.number, "location": record.location, "source_id": source_id}
        row["notes"] = list(record.notes) or None
        if record.row is None and product is None:
            return row | {"reason": record.reason}
        try:
            cells = (
                self._sample(record, roots, decoded)
                if product is None
                else self._product(record, product, roots, decoded)
            )
            return row | cells
        except RowError as error:
            return row | {"reason": str(error)}
        except Exception as error:  # a row of unforeseen shape must not affect other rows
            return row | {"reason": f"unreadable row: {type(error).__name__}: {str(error)[:200]}"}

    def _sample(self, record: Record, roots: Roots, decoded: dict[str, Outcome]) -> dict[str, object]:
        cells = record.row or {}
        task = self._task(cells.get("task"))
        sample = task.parse(cells)
        prompts = task.view_prompts(sample)
        references = [
            self._reference(read_reference(value, roots, f"{record.location}, image {place}"), decoded)
            for place, value in enumerate(sample.images, 1)
        ]
        if len(prompts) != len(references):
            raise RowError(f"{len(references)} images for {len(prompts)} products: give one image a product")
        return {
            "sample_id": sample.sample_id,
            "task": sample.task,
            "split": sample.split,
            "instruction": sample.instruction,
            "input": [{"field": name, "text": text} for name, text in sample.input],
            "options": list(sample.options),
            "output": sample.output,
            "notes": [*record.notes, *sample.notes] or None,
            "captions": [*sample.captions, *([None] * (len(references) - len(sample.captions)))],
            **_positions(references, prompts),
        }

    def _product(
        self, record: Record, product: Product, roots: Roots, decoded: dict[str, Outcome]
    ) -> dict[str, object]:
        """Return a product: its texts, and for each context the images that are captioned for it."""
        texts = dict(product.texts)
        asked = [
            (context.name, place, prompts)
            for context in self._contexts
            for prompts in [context.prompts(texts)]
            for place in range(len(product.images[: context.most_images]))
        ]
        references = {
            place: self._reference(
                read_reference(product.images[place], roots, f"{record.location}, image {place + 1}"), decoded
            )
            for place in sorted({place for _, place, _ in asked})
        }
        return {
            "product_id": product.product_id,
            "input": [{"field": name, "text": text} for name, text in product.texts],
            "captions": [None] * len(asked),
            "contexts": [name for name, _, _ in asked],
            "places": [place + 1 for _, place, _ in asked],
            **_positions([references[place] for _, place, _ in asked], [prompts for _, _, prompts in asked]),
        }

    def _task(self, name: object) -> Task:
        """Return the job's task, which may differ from the one installed on this machine."""
        for task in self._tasks.values():
            if name in (task.name, task.code):
                return task
        found = find_task(name)
        return self._tasks.get(found.name, found)

    def _reference(self, reference: Reference, decoded: dict[str, Outcome]) -> Reference:
        """Decode the bytes of a reference, once per chunk."""
        if reference.data is None:
            return reference
        if reference.locator not in decoded:
            decoded[reference.locator] = try_decode(reference.data(), self._images)
        return reference


def _positions(references: Sequence[Reference], prompts: Sequence[ViewPrompts]) -> dict[str, object]:
    return {
        "locators": [reference.locator for reference in references],
        "sources": [reference.source for reference in references],
        "caption_prompts": [prompt.caption.text for prompt in prompts],
        "quality_prompts": [prompt.quality.text for prompt in prompts],
        "caption_fields": [_spans(prompt.caption) for prompt in prompts],
        "quality_fields": [_spans(prompt.quality) for prompt in prompts],
    }


def _source_id(cell: object) -> str | None:
    """Return the id that a source gives a row, as text; None if it gives none."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # an integer column with a missing value
    with suppress(RowError):
        return as_text(cell)[:_ID_CHARACTERS] or None
    return None


def _spans(prompt: Prompt) -> list[list[int]]:
    return [list(span) for span in prompt.fields]
