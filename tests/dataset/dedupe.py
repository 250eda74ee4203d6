"""Deduplicates references by hand.

Run as: ``python -m tests.dataset.dedupe REFERENCES DIR``. It writes parsed rows with so many references, each distinct
one ten times on average, and a ledger that has all of them, as an earlier job leaves it. Then it shuffles the
references, compares them with the ledger and joins them with their results, and prints references per second and the
driver's peak memory.
"""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from caslie_ray.dataset._deduplication import References
from caslie_ray.dataset._fetching import Outcome
from caslie_ray.dataset._headers import RequestHeaders
from caslie_ray.dataset._intermediate import PARSED
from caslie_ray.dataset._references_ledger import write_fetched
from caslie_ray.dataset._shuffle import groups_of
from caslie_ray.profiles import load_profile
from caslie_ray.storage.run import open_run
from tests.dataset.test_driver_memory import peak

_PER_ROW = 10
_CHUNK = 50_000  # references
_REPEATS = 10
_LEDGER = 50_000


def _locator(number: int) -> str:
    return f"url:https://images.example.com/products/{number % 1000:03d}/{number:012d}.jpg"


def fabricate(references: int, folder: str) -> None:
    """Write parsed rows and a ledger."""
    run, profile = open_run(folder), load_profile("mini")
    numbers = np.random.default_rng(0)
    distinct = max(1, references // _REPEATS)
    for index, start in enumerate(range(0, references, _CHUNK)):
        size = min(_CHUNK, references - start)
        names = pa.array([_locator(number) for number in numbers.integers(0, distinct, size).tolist()])
        lists = pa.ListArray.from_arrays(pa.array([*range(0, size, _PER_ROW), size], pa.int32()), names)
        columns = {field.name: pa.nulls(len(lists), field.type) for field in PARSED}
        run.write("ingest/parsed/made", f"{index:06d}", pa.table({**columns, "locators": lists}), PARSED)
    places = random.Random(0).sample(range(distinct), distinct)
    for start in range(0, distinct, _LEDGER):
        some = [(_locator(number), Outcome(None, "HTTP 404: made up")) for number in places[start : start + _LEDGER]]
        write_fetched(run, profile.images, some)


def dedupe(references: int, folder: str) -> None:
    """Do the steps between parsing and the tables, and print what each took."""
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    run, profile = open_run(folder), load_profile("mini")
    chunks = [(0, path) for path in sorted(run.files("ingest/parsed/made"))]
    groups = groups_of(chunks, _CHUNK // _PER_ROW, profile.ingest.concurrency)
    made = References(run, profile, RequestHeaders({}), references, quiet=True)
    begun = time.monotonic()
    steps = {"shuffle": lambda: made.shuffle(groups), "compare": lambda: made.fetch([]), "join": made.join}
    for name, step in steps.items():
        started = time.monotonic()
        step()
        print(f"{name:8} {time.monotonic() - started:6.1f} s, driver peak {peak():.0f} MiB")
    seconds = time.monotonic() - begun
    print(f"{references:,} references in {seconds:.0f} s: {references / seconds:,.0f}/s, driver peak {peak():.0f} MiB")


def main(references: int, folder: Path) -> None:
    """Write the files in a process of its own, so that the driver's peak is that of the steps."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "ingest").exists():
        subprocess.run(
            [sys.executable, "-m", "tests.dataset.dedupe", "--make", str(references), str(folder)], check=True
        )
    dedupe(references, str(folder))


if __name__ == "__main__":
    if sys.argv[1] == "--make":
        fabricate(int(sys.argv[2]), sys.argv[3])
    else:
        main(int(sys.argv[1]), Path(sys.argv[2]))
