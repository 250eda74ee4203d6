from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa

from caslie_ray.benchmark._job_process import used_store_mib, worker_mib
from caslie_ray.benchmark._resource_usage import ProcessTree, ResourceMonitor, RowCounter
from caslie_ray.captioning import caption_rows
from caslie_ray.storage.run import Run, open_run
from caslie_ray.storage.schemas import ANSWERS


def write(run: Run, stem: str, *ids: str) -> str:
    row = {
        "image_id": "0", "caption": "a hammer", "votes": [], "verdict": True, "calls": 1, "cut": False, "error": None,
        "retryable": False, "caption_key": "k", "caption_cut": False, "caption_tokens": 1, "caption_truncated": False,
    }  # fmt: skip
    return run.write("captions", stem, caption_rows({"view_id": one, **row} for one in ids))


def test_rows_count_once_whatever_files_they_are_in(tmp_path: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    watch = RowCounter(run)
    watch.update()
    assert [count for _, count in watch.events.get("captions", [])] == []
    parts = [write(run, "0-a", "0a", "0b"), write(run, "0-b", "0c")]
    watch.update()
    write(run, "0", "0a", "0b", "0c")  # merged
    run.delete(parts)
    watch.update()
    write(run, "1-a", "1a")
    watch.update()
    watch.update()
    assert [count for _, count in watch.events["captions"]] == [3, 4]
    moments = [at for at, _ in watch.events["captions"]]
    assert moments == sorted(moments)


def test_each_models_answers_are_a_table_and_kept_ones_are_none(tmp_path: Path) -> None:
    run = open_run(str(tmp_path / "run"))
    row = {"text": None, "p_yes": 0.5, "tokens": 1, "cut": False, "error": None, "retryable": False, "truncated": None}
    for folder in ("answers/phi-0123", "answers/kept"):
        run.write(folder, "0-a", pa.Table.from_pylist([{"key": "x", **row}], schema=ANSWERS), schema=ANSWERS)
    watch = RowCounter(run)
    watch.update()
    assert {table: [count for _, count in events] for table, events in watch.events.items() if events} == {
        "answers/phi-0123": [1]
    }


_PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {child!r}])
held = bytearray(b"x" * (60 << 20))
child.wait()
time.sleep(1.5)
"""
_CHILD = """
import time
held = bytearray(b"x" * (90 << 20))
end = time.process_time() + 1.0
while time.process_time() < end: pass
time.sleep(1.5)
"""


def test_memory_and_cpu_time_of_a_process_and_its_children() -> None:
    begin = time.time()
    with subprocess.Popen([sys.executable, "-c", _PARENT.format(child=_CHILD)]) as process:
        family = ProcessTree(process.pid)
        with ResourceMonitor([], family) as watcher:
            process.wait(60)
    family.wait(1.0)
    peaks = watcher.peaks(begin, time.time())
    driver, workers = peaks["driver"], peaks["workers"]
    assert driver is not None
    assert workers is not None
    assert 60 <= driver < 140  # a sample may see the bytes and their copy
    assert 90 <= workers < 200
    assert peaks["ray"] == 0
    assert watcher.usage[-1].cpu_s >= 0.9
    spent = watcher.cpu_between(watcher.usage[0].at, watcher.usage[-1].at)
    assert spent is not None
    assert spent <= watcher.usage[-1].cpu_s
    assert watcher.cpu_between(begin - 100, begin - 50) is None
    assert watcher.peaks(begin - 100, begin - 50) == {"driver": None, "workers": None, "ray": None}


def test_what_ray_exports_of_its_object_store_is_added_up() -> None:
    metrics = """
# HELP ray_object_store_used_memory x
ray_object_store_used_memory{Component="raylet",NodeAddress="10.0.0.1"} 2097152.0
ray_object_store_used_memory{Component="raylet",NodeAddress="10.0.0.2"} 1.048576e+06
ray_object_store_available_memory{Component="raylet"} 9e9
"""
    assert used_store_mib(metrics) == 3.0
    assert used_store_mib("") == 0.0


def test_what_ray_exports_of_its_workers_is_added_up() -> None:
    metrics = """
ray_component_rss_mb{Component="ray::IDLE",ip="10.0.0.1"} 100.0
ray_component_rss_mb{SessionName="s",Component="ray::MapWorker(MapBatches(ModelStage_phi)).submit",ip="10.0.0.1"} 62.144
ray_component_rss_mb{Component="raylet",ip="10.0.0.1"} 500.0
ray_component_rss_mb{Component="ray::DashboardAgent",ip="10.0.0.1"} 500.0
ray_component_rss_bytes{Component="ray::IDLE",ip="10.0.0.1"} 1e8
"""
    assert round(worker_mib(metrics), 2) == 154.63
