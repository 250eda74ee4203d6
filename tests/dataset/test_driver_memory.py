"""The driver of ingest needs the same memory for 10⁵ and for 10⁶ references.

Run as: ``python -m tests.dataset.test_driver_memory ROWS DIR``. It writes a source with so many references to tiny
images, whose bytes are in Parquet, ingests it in a new process, and prints the driver's peak memory and references per
second.
"""

from __future__ import annotations

import json
import logging
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

_IMAGES = 10  # per row
_ROWS = 1000  # per row group
_SIDE = 4


def tiny(number: int) -> bytes:
    """A PNG of 4×4 pixels that differs with its number."""
    pixels = (number.to_bytes(8, "little") * 6)[: 3 * _SIDE * _SIDE]
    lines = b"".join(b"\0" + pixels[at : at + 3 * _SIDE] for at in range(0, len(pixels), 3 * _SIDE))
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 1)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def row(number: int) -> dict[str, Any]:
    """A sequential recommendation with images of its own."""
    titles = [f"product {number * _IMAGES + at}" for at in range(_IMAGES)]
    return {
        "task": "SR",
        "split": "train",
        "instruction": "",
        "input": json.dumps([f"{at + 1}th: {title}" for at, title in enumerate(titles[:6])]),
        "options": json.dumps([f"{'ABCD'[at]}: {title}" for at, title in enumerate(titles[6:])]),
        "output": f"A: {titles[6]}",
        "images": [{"bytes": tiny(number * _IMAGES + at), "path": None} for at in range(_IMAGES)],
    }


def write_source(path: Path, references: int) -> None:
    """Write a Parquet file with so many references."""

    def groups() -> Iterator[pa.Table]:
        rows = -(-references // _IMAGES)
        for start in range(0, rows, _ROWS):
            yield pa.Table.from_pylist([row(number) for number in range(start, min(rows, start + _ROWS))])

    with pq.ParquetWriter(path, pa.Table.from_pylist([row(0)]).schema) as writer:
        for group in groups():
            writer.write_table(group)


def peak() -> float:
    """Peak resident memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def driver(source: str, run: str) -> None:
    """Ingest a source on a Ray of this machine, and print what it took as JSON."""
    import ray

    from caslie_ray.dataset import ingest
    from caslie_ray.profiles import load_profile
    from caslie_ray.storage.run import open_run

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    started = time.monotonic()
    summary = ingest(open_run(run), [source], load_profile("mini"), quiet=True)
    seconds = time.monotonic() - started
    print(json.dumps({"references": summary.references, "images": summary.images, "seconds": seconds, "peak": peak()}))


def measured(references: int, folder: Path) -> dict[str, Any]:
    """Write a source, ingest it in a new process and return what it took."""
    folder.mkdir(parents=True, exist_ok=True)
    source, run = folder / f"{references}.parquet", folder / f"run-{references}"
    write_source(source, references)
    command = [sys.executable, "-m", "tests.dataset.test_driver_memory", "--driver", str(source), str(run)]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, Any] = json.loads(found.strip().split("\n")[-1])
    return result


@pytest.mark.timeout(7200)
def test_the_driver_needs_the_same_memory_for_ten_times_the_references(tmp_path: Path) -> None:
    few, many = (measured(count, tmp_path) for count in (10**5, 10**6))
    assert (few["images"], many["images"]) == (10**5, 10**6)
    assert many["peak"] < 1.1 * few["peak"]


def test_tiny_images_differ() -> None:
    assert len({tiny(number) for number in (0, 1, 255, 256, 10**6)}) == 5


if __name__ == "__main__":
    if sys.argv[1] == "--driver":
        driver(*sys.argv[2:])
    else:
        taken = measured(int(sys.argv[1]), Path(sys.argv[2]))
        rate = taken["references"] / taken["seconds"]
        print(f"{taken['references']:,} references, {taken['images']:,} images: {rate:,.0f} references/s,", end=" ")
        print(f"{taken['seconds']:.0f} s, driver peak {taken['peak']:.0f} MiB")
