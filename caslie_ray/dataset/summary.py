"""What `ingest` reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from caslie_ray.tasks import SPLITS, TASKS

__all__ = ["IngestSummary", "counted", "plural", "readings", "unusable"]

_SHOWN = 50
_NAMES = 10
_REASONS = 5


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """The outcome of one `ingest`.

    Attributes:
        files: source files read.
        ignored_files: files in source folders with the extension of another format, such as images.
        run_files: files in source folders that belong to runs and are left out.
        rows: rows of the sources, readable or not.
        read_as: rows that were read in an unexpected way, such as ``"cp1252"`` or ``"rows below a
            key"``: for each way the rows, the source files, and the names of the first of these.
        samples: samples in the table.
        samples_by_task: samples by task and split.
        unlabelled: those of them without a true answer: they are captioned, and neither trained on nor measured.
        products: products of catalogues in the table.
        gone_products: products of earlier exports that these sources have no more.
        products_without_image: products that name no image.
        repeats: rows that repeat a product, or a sample of the same split.
        references: image positions of the samples, and of the products in each context.
        lost_references: those that gave no image.
        images: distinct images in the table.
        image_bytes: their bytes together.
        views: distinct views in the table.
        repeated_views: positions with an image that share their view with another position.
        rejects: rows of the table `rejects`, by kind.
        reject_reasons: by kind, the most frequent reasons, each up to its first colon.
        reject_examples: by kind, for each of the most frequent of these the reason in full.
        retryable_rejects: rejects that the next run tries again.
        parsed_rows: rows that this run read; none where the sources were unchanged.
        fetched: references that this run fetched, with or without success.
        written_files: table files that this run wrote.
        seconds: how long this run took.
    """

    files: int = 0
    ignored_files: int = 0
    run_files: int = 0
    rows: int = 0
    read_as: dict[str, dict[str, Any]] = field(default_factory=dict)
    samples: int = 0
    samples_by_task: dict[str, dict[str, int]] = field(default_factory=dict)
    unlabelled: int = 0
    products: int = 0
    gone_products: int = 0
    products_without_image: int = 0
    repeats: int = 0
    references: int = 0
    lost_references: int = 0
    images: int = 0
    image_bytes: int = 0
    views: int = 0
    repeated_views: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    reject_reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    reject_examples: dict[str, dict[str, str]] = field(default_factory=dict)
    retryable_rejects: int = 0
    parsed_rows: int = 0
    fetched: int = 0
    written_files: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as plain values for JSON."""
        return asdict(self)


def readings(notes: Mapping[tuple[int, str], int], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return `read_as` of a summary from rows by source and reading, and the names of the sources."""
    found: dict[str, dict[str, Any]] = {}
    for (place, how), count in sorted(notes.items()):
        cell = found.setdefault(how, {"rows": 0, "files": 0, "names": []})
        cell["rows"] += count
        cell["files"] += 1
        cell["names"] += [names[place]] if len(cell["names"]) < _NAMES else []
    return dict(sorted(found.items()))


def counted(
    rows: int,
    counts: Mapping[tuple[str, ...], int],
    reasons: Mapping[tuple[str, str], int],
    examples: Mapping[tuple[str, str], str],
) -> dict[str, Any]:
    """Return the part of a summary that describes the tables, and so is the same for every job on them."""
    tasks: dict[str, dict[str, int]] = {}
    for key, count in sorted(counts.items()):
        if key[0] == "samples":
            tasks.setdefault(key[1], {})[key[2]] = count
    by_kind = {kind: Counter({why: n for (k, why), n in reasons.items() if k == kind}) for kind in ("sample", "image")}
    frequent = {
        kind: [why for _, why in sorted((-count, why) for why, count in found.items())[:_SHOWN]]
        for kind, found in by_kind.items()
    }
    names = ("positions", "lost", "images", "bytes", "views", "unlabelled", "products", "gone", "imageless", "repeats")
    one = {name: counts.get((name,), 0) for name in names}
    return {
        "rows": rows,
        "samples": sum(sum(splits.values()) for splits in tasks.values()),
        "samples_by_task": tasks,
        "unlabelled": one["unlabelled"],
        "products": one["products"],
        "gone_products": one["gone"],
        "products_without_image": one["imageless"],
        "repeats": one["repeats"],
        "references": one["positions"],
        "lost_references": one["lost"],
        "images": one["images"],
        "image_bytes": one["bytes"],
        "views": one["views"],
        "repeated_views": one["positions"] - one["lost"] - one["views"],
        "rejects": {kind: sum(found.values()) for kind, found in by_kind.items()},
        "reject_reasons": {kind: {why: by_kind[kind][why] for why in names} for kind, names in frequent.items()},
        "reject_examples": {
            kind: {why: examples[kind, why] for why in names[:_REASONS]} for kind, names in frequent.items()
        },
        "retryable_rejects": counts.get(("retryable",), 0),
    }


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``"1 row"`` or ``"2,000 rows"``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def unusable(summary: Mapping[str, Any], run: str) -> str:
    """Return the error message where no row of the sources could be used: what was found, and what is accepted."""
    rows, files = summary["rows"], summary["files"]
    found = f"{plural(rows, 'row')} in {plural(files, 'file')}"
    counts = summary["reject_reasons"]["sample"]
    reasons = [f"{counts[why]:,} × {reason}" for why, reason in summary["reject_examples"]["sample"].items()]
    return (
        f"no row could be used: {found}"
        + (f": {' · '.join(reasons)}" if reasons else ", so there is nothing to do")
        + ". Accepted: JSON, JSON Lines, Parquet, CSV and XML feeds, gzipped or not. Samples have the columns task"
        f" ({', '.join(TASKS)}), split ({', '.join(SPLITS)}), instruction, input, options, output and images; products"
        " of a catalogue an id, a title and images. Other names of columns are given with ingest.keys."
        f" {run}/rejects has each row with its reason"
    )
