"""How fusion fares with very many samples: the real job, on tables that are fabricated as files.

Run as:
    python -m tests.fusion_scale ROWS DIR

Writes ROWS samples and as many captions below DIR, each sample with one image, and fuses them. Prints rows per second
and the peak memory of the driver as JSON; nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.fusion import fuse
from caslie_ray.profiles import load_profile
from caslie_ray.storage.partitions import partition_names
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import SCHEMAS
from tests.tasks.records import sample

__all__ = ["fabricate_tables", "measure"]

SETTINGS = ["experiments.shuffled=true"]

Numbers = npt.NDArray[np.int64]


def fabricate_tables(run: Run, rows: int, digits: int = 2) -> None:
    """Write samples and captions; a partition of samples asks for captions of every partition."""
    names = partition_names(digits)
    for number, name in enumerate(names):
        run.write("samples", name, _samples(name, np.arange(number, rows, len(names))))
        first, last = (rows * end // len(names) for end in (number, number + 1))
        run.write("captions", name, _captions(name, np.arange(first, last)))


def _ids(prefix: str, numbers: Numbers, width: int) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, digits, "")


def _samples(prefix: str, numbers: Numbers) -> pa.Table:
    one, count = sample("CC"), len(numbers)
    row: dict[str, Any] = {
        "sample_id": "", "task": one.task, "split": "train", "instruction": one.instruction,
        "input": [{"field": name, "text": text} for name, text in one.input], "options": list(one.options),
        "output": one.output, "view_ids": [], "captions": [], "source_ids": None,
    }  # fmt: skip
    schema = SCHEMAS["samples"]
    table = pa.Table.from_pylist([row], schema=schema).take(pa.array(np.zeros(count, np.int64)))
    views = pa.ListArray.from_arrays(pa.array(np.arange(count + 1), pa.int32()), _ids("", numbers, 32))
    for name, column in (("sample_id", _ids(prefix, numbers, 30)), ("view_ids", views)):
        table = table.set_column(schema.get_field_index(name), name, column)
    return table


def _captions(prefix: str, numbers: Numbers) -> pa.Table:
    text = pc.binary_join_element_wise("A red mug of steel with a striped pattern,", _ids("", numbers, 9), " ")
    columns = {
        "view_id": _ids("", numbers, 32), "image_id": _ids(prefix, numbers, 30), "caption": text,
        "verdict": pa.array(numbers % 3 == 0),
    }  # fmt: skip
    schema = SCHEMAS["captions"]
    return pa.table([columns.get(field.name, pa.nulls(len(numbers), field.type)) for field in schema], schema=schema)


def measure(rows: int, folder: Path) -> dict[str, float]:
    """Fabricate tables and fuse them, each in a process of its own; return what the latter measured."""
    for step in ("fabricate", "fuse"):
        command = [sys.executable, "-m", "tests.fusion_scale", str(rows), str(folder), "--step", step]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-4000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _fuse(folder: Path, rows: int) -> dict[str, float]:
    begun = time.monotonic()
    summary = fuse(open_run(str(folder)), load_profile("mini", SETTINGS), quiet=True)
    seconds = time.monotonic() - begun
    assert summary["variants"]["uia"] == {"train": rows, "captions": rows}
    assert summary["variants"]["shuffled"]["captions"] == summary["variants"]["caslie"]["captions"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "rows": rows, "seconds": round(seconds, 1), "rows_per_second": round(rows / seconds),
        "driver_peak_mib": round(peak, 1),
    }  # fmt: skip


def main() -> None:
    """Do one step, or both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--step", choices=("fabricate", "fuse"))
    arguments = parser.parse_args()
    if arguments.step is None:
        print(json.dumps(measure(arguments.rows, arguments.folder)))
    elif arguments.step == "fabricate":
        fabricate_tables(open_run(str(arguments.folder)), arguments.rows)
    else:
        print(json.dumps(_fuse(arguments.folder, arguments.rows)))


if __name__ == "__main__":
    main()
