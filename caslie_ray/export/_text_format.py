"""The formats that are text: CSV, JSON Lines, and the files that shops import."""

from __future__ import annotations

import csv
import io
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from caslie_ray.export._cells import on_one_line, quoted, safe, shortened
from caslie_ray.export._rows import ROWS

__all__ = ["CSV", "JSON_LINES", "MERCHANT_CENTER", "SHOPIFY", "TextFormat"]

_BATCH = 4096
_CHUNK = 8 << 20

_ALT_TEXT_LIMIT = 512
_DESCRIPTION_LIMIT = 5_000
# Google's mark of texts that a model has generated.
_GENERATED = "trained_algorithmic_media"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class TextFormat:
    """A format whose parts can be joined: a file is a header and lines.

    Attributes:
        header: begins each file.
        lines: yields the lines of some rows.
    """

    header: str
    lines: Callable[[Iterator[Row]], Iterator[str]]

    def encode(self, rows: pa.Table) -> tuple[pa.Buffer, int]:
        """Return rows as lines, without the header, and the number of lines."""
        data = io.BytesIO()
        count = 0
        for line in self.lines(_dicts(rows)):
            data.write(line.encode())
            count += 1
        return pa.py_buffer(data.getbuffer()), count

    def write_one(self, stream: BinaryIO, part: BinaryIO) -> None:
        """Write a file that is one part."""
        self.write_all(stream, [part])

    def write_all(self, stream: BinaryIO, parts: Iterable[BinaryIO]) -> None:
        """Write a file from any number of parts, in their order."""
        stream.write(self.header.encode())
        for part in parts:
            shutil.copyfileobj(part, stream, _CHUNK)


class _Echo:
    """A file for `csv.writer`, whose `writerow` returns what `write` returns: the line."""

    def write(self, line: str) -> str:
        return line


def _csv_line(cells: Iterable[str]) -> str:
    return str(csv.writer(_Echo()).writerow(cells))


def _dicts(rows: pa.Table) -> Iterator[Row]:
    for batch in rows.to_batches(max_chunksize=_BATCH):
        for row in batch.to_pylist():
            votes = row["probabilities"]
            yield row | {"probabilities": votes and {vote["voter"]: vote["p_yes"] for vote in votes}}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return safe(value) if isinstance(value, str) else _json(value)


def _csv_lines(rows: Iterator[Row]) -> Iterator[str]:
    for row in rows:
        yield _csv_line(_cell(row[name]) for name in ROWS.names)


def _json_lines(rows: Iterator[Row]) -> Iterator[str]:
    for row in rows:
        yield _json(row) + "\n"


def _shopify_lines(rows: Iterator[Row]) -> Iterator[str]:
    for row in rows:
        alt_text = shortened(safe(on_one_line(row["caption"])), _ALT_TEXT_LIMIT)
        yield _csv_line([_cell(row["id"]), _cell(row["image"]), _cell(row["place"]), alt_text])


def _merchant_center_lines(rows: Iterator[Row]) -> Iterator[str]:
    for product, views in itertools.groupby(rows, key=lambda row: str(row["id"])):
        captions = dict.fromkeys(on_one_line(view["caption"]) for view in views)
        description = shortened(" ".join(captions), _DESCRIPTION_LIMIT)
        yield f"{on_one_line(product)}\t{_GENERATED}:{quoted(description)}\n"


CSV = TextFormat(_csv_line(ROWS.names), _csv_lines)
JSON_LINES = TextFormat("", _json_lines)
SHOPIFY = TextFormat(_csv_line(["Handle", "Image Src", "Image Position", "Image Alt Text"]), _shopify_lines)
MERCHANT_CENTER = TextFormat("id\tstructured_description\n", _merchant_center_lines)
