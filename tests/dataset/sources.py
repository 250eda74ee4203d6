"""Writes one source file and reads it back, for the tests of formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from caslie_ray.dataset._columns import Columns
from caslie_ray.dataset._limits import DEFAULT, Limits
from caslie_ray.dataset._reading import Record, read_source
from caslie_ray.dataset._sources import find_sources
from caslie_ray.profiles import SourceKeys

COLUMNS = Columns.of(SourceKeys())


def sentiment(number: int, **cells: Any) -> dict[str, Any]:
    """A sentiment analysis row in the released format."""
    row = {
        "task": "sentiment_analysis",
        "split": "test",
        "instruction": "Which sentiment does the review show?",
        "input": json.dumps({"review": f"Review {number}."}),
        "options": json.dumps(["positive", "negative"]),
        "output": "positive",
        "images": json.dumps(["p.jpg"]),
    }
    return row | cells


def read(path: Path, data: bytes | str, encoding: str | None = None, limits: Limits = DEFAULT) -> list[Record]:
    """Write a file and return its records."""
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    files, _ = find_sources([str(path)])
    return list(read_source(files[0], COLUMNS, encoding, limits))


def reviews(records: list[Record]) -> list[str]:
    """The review of each row that could be read, the start of the reason of each other one."""
    found = []
    for record in records:
        if record.row is None:
            found.append((record.reason or "").split(":")[0])
            continue
        value = record.row["input"]
        cell: Any = json.loads(value) if isinstance(value, str) else value
        found.append(str(cell["review"]))
    return found


def splits(records: list[Record]) -> list[object]:
    """The split of each row that could be read."""
    return [record.row.get("split") for record in records if record.row is not None]
