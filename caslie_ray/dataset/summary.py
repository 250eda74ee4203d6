"""What `ingest` reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["IngestSummary", "counted"]

_SHOWN = 50


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """The outcome of one `ingest`.

    Attributes:
        files: source files read.
        ignored_files: files in source folders that hold no rows, such as pictures.
        rows: rows of the sources, readable or not.
        samples: samples in the table.
        samples_by_task: samples by task and split.
        repeats: rows that repeat a sample of their own split, and so are no sample of their own.
        references: image positions of the samples in the table.
        lost_references: those that gave no image.
        images: distinct images in the table.
        image_bytes: their bytes together.
        views: distinct views in the table.
        repeated_views: positions with an image that share their view with another position.
        rejects: rows of the table `rejects`, by kind.
        reject_reasons: by kind, the most frequent reasons, each up to its first colon.
        retryable_rejects: rejects that the next run tries again.
        read_as: how many rows had cells that were read in a way that may surprise, by way.
        parsed_rows: rows that this run read; none where the sources were unchanged.
        fetched: references that this run fetched, with or without success.
        written_files: table files that this run wrote.
        seconds: how long this run took.
    """

    files: int = 0
    ignored_files: int = 0
    rows: int = 0
    samples: int = 0
    samples_by_task: dict[str, dict[str, int]] = field(default_factory=dict)
    repeats: int = 0
    references: int = 0
    lost_references: int = 0
    images: int = 0
    image_bytes: int = 0
    views: int = 0
    repeated_views: int = 0
    rejects: dict[str, int] = field(default_factory=dict)
    reject_reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    retryable_rejects: int = 0
    read_as: dict[str, int] = field(default_factory=dict)
    parsed_rows: int = 0
    fetched: int = 0
    written_files: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the summary as plain values for JSON."""
        return asdict(self)


def counted(
    rows: int,
    counts: Mapping[tuple[str, ...], int],
    reasons: Mapping[tuple[str, str], int],
    notes: Mapping[str, int],
) -> dict[str, Any]:
    """Return the part of a summary that describes the tables, and so is the same for every run over them."""
    tasks: dict[str, dict[str, int]] = {}
    for key, count in sorted(counts.items()):
        if key[0] == "samples":
            tasks.setdefault(key[1], {})[key[2]] = count
    by_kind = {kind: Counter({why: n for (k, why), n in reasons.items() if k == kind}) for kind in ("sample", "image")}
    one = {name: counts.get((name,), 0) for name in ("positions", "lost", "images", "bytes", "views")}
    return {
        "rows": rows,
        "samples": sum(sum(splits.values()) for splits in tasks.values()),
        "samples_by_task": tasks,
        "repeats": counts.get(("repeats",), 0),
        "references": one["positions"],
        "lost_references": one["lost"],
        "images": one["images"],
        "image_bytes": one["bytes"],
        "views": one["views"],
        "repeated_views": one["positions"] - one["lost"] - one["views"],
        "rejects": {kind: sum(found.values()) for kind, found in by_kind.items()},
        "reject_reasons": {
            kind: dict(sorted(found.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN])
            for kind, found in by_kind.items()
        },
        "retryable_rejects": counts.get(("retryable",), 0),
        "read_as": dict(sorted(notes.items())),
    }
