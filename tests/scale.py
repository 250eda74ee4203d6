"""How a caption job fares with very many views: the real job, on an engine that answers without computing.

Run as:
    python -m tests.scale --views 1000000 --run DIR
    python -m tests.scale --views 100000 --run DIR --whole

A run is fabricated as files. The driver of its first job is killed half-way, the job is run again to its end, once
more with nothing left to do, and asked for its status. Seconds, rates and memory are printed; nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from caslie_ray.benchmark._fabricate import fabricate
from caslie_ray.benchmark._null_engine import NULL_ENGINE
from caslie_ray.captioning._partition_status import partition_status
from caslie_ray.roles import resolve
from caslie_ray.storage.run import Run, open_run
from tests.worlds import VOTERS, profile, voter

__all__ = ["SETTINGS", "Watched", "fabricate", "main"]

ROOT = Path(__file__).resolve().parent.parent
DIGITS = 2

SETTINGS = [
    "lineup.voters=" + json.dumps([voter(name, engine=NULL_ENGINE) for name in VOTERS[:3]]),
    f"lineup.captioner.engine={NULL_ENGINE}",
    "lineup.captioner.resources.cpus=0.2",
    f"storage.partition_digits={DIGITS}",
]


@dataclass
class Sample:
    """What was seen of a job at one moment; memory in MiB, without the pages of the object store.

    Attributes:
        seconds: since its start.
        rows: stored rows.
        driver: its memory.
        monitor: memory of the actor that watches the models.
        replica: that of the largest.
        task: that of the largest worker.
        tasks: tasks at work.
        gcs: memory of Ray's table of what runs, a part of the next.
        ray: that of all processes of Ray's own.
        store: what the object store has ever touched.
    """

    seconds: float
    rows: float
    driver: float = 0.0
    monitor: float = 0.0
    replica: float = 0.0
    task: float = 0.0
    gcs: float = 0.0
    ray: float = 0.0
    store: float = 0.0
    tasks: float = 0.0

    @staticmethod
    def head() -> str:
        return " ".join(f"{name:>9}" for name in ("share", *_COLUMNS))

    def line(self, label: str) -> str:
        return " ".join([f"{label:>9}", *(f"{getattr(self, name):>9,.0f}" for name in _COLUMNS)])


_KINDS = {
    "driver": "driver", "ray::Monitor": "monitor", "ray::MapWorker(MapBatches(ModelStage": "replica",
    "ray::MapWorker": "task", "ray::MapBatches": "task", "ray::IDLE": "task", "ray::call": "task",
}  # fmt: skip
_FIRSTS = {"driver": "started", "ray": "Ray begins to start"}
_COLUMNS = ("seconds", "rows", "driver", "monitor", "replica", "task", "tasks", "gcs", "ray", "store")


@dataclass
class Watched:
    """A caption job in a process of its own, and what was seen of it.

    Attributes:
        run: what it works on.
        views: how many views the run has.
        marks: seconds from its start to what its log says, and to its first file.
        samples: its processes, every second.
    """

    run: Run
    views: int
    marks: dict[str, float] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu: dict[int, tuple[str, float]] = field(default_factory=dict)

    def work(self, *arguments: str, settings: Sequence[str] = SETTINGS, until: float | None = None) -> int:
        """Run the job to its end, or until a share of the views has rows; return its exit code."""
        folder = Path(self.run.path("captions"))
        before = _files(folder)
        counted: dict[str, int] = {}
        begun = time.monotonic()
        command = [sys.executable, str(ROOT / "jobs" / "caption.py"), "--run", self.run.uri, *arguments]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        process = subprocess.Popen(
            [*command, "--set", *settings], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", **environment},
        )  # fmt: skip
        reader = threading.Thread(target=self._listen, args=(process.stdout, begun), daemon=True)
        reader.start()
        due = 0.0
        family: dict[int, psutil.Process] = {}
        while process.poll() is None:
            now = time.monotonic() - begun
            if "first file" not in self.marks and _files(folder) - before:
                self.marks["first file"] = now
            if now >= due:
                due = now + 1.0
                sample = self._look(process.pid, now, _rows(folder, counted), family)
                self.samples.append(sample)
                if until is not None and sample.rows >= until * self.views:
                    process.kill()
            time.sleep(0.05)
        reader.join(5.0)
        self.seconds = time.monotonic() - begun
        # What a killed driver leaves ends by itself; what comes next is to have the machine for itself.
        while any(map(_lives, family.values())) and time.monotonic() - begun < self.seconds + 60:
            time.sleep(0.1)
        return process.returncode

    def _look(self, driver: int, now: float, rows: int, family: dict[int, psutil.Process]) -> Sample:
        sample = Sample(now, rows)
        with suppress(psutil.NoSuchProcess):
            for process in [psutil.Process(driver), *psutil.Process(driver).children(recursive=True)]:
                family.setdefault(process.pid, process)
                with suppress(psutil.NoSuchProcess, OSError):
                    self._count(process, process.pid == driver, sample)
        return sample

    def _count(self, process: psutil.Process, is_driver: bool, sample: Sample) -> None:
        title = "driver" if is_driver else " ".join(process.cmdline()[:1])
        kind = next((kind for start, kind in _KINDS.items() if title.startswith(start)), "ray")
        held = _resident(process.pid)
        self.marks.setdefault(_FIRSTS.get(kind, f"first {kind}"), sample.seconds)
        setattr(sample, kind, held + sample.ray if kind == "ray" else max(getattr(sample, kind), held))
        sample.tasks += kind == "task" and not title.startswith("ray::IDLE")
        if title.endswith("gcs_server"):
            sample.gcs = held
        if title.endswith("raylet"):
            sample.store = _store(process.pid)
        spent = process.cpu_times()
        self.cpu[process.pid] = kind, spent.user + spent.system

    def _listen(self, stream: Any, begun: float) -> None:
        for line in stream:
            self.said.append(line.rstrip())
            if " loading " in line:
                self.marks["models begin to load"] = time.monotonic() - begun

    def at(self, share: float) -> Sample | None:
        """What was seen when a share of the views had rows; None where they had before it began, or never did."""
        goal = share * self.views
        if self.samples and self.samples[0].rows > goal:
            return None
        return next((one for one in self.samples if one.rows >= goal), None)

    def most(self) -> Sample:
        """The greatest figure of each kind."""
        figures: dict[str, Any] = {name: max(getattr(one, name) for one in self.samples) for name in _COLUMNS}
        return Sample(**figures)

    def report(self) -> Iterator[str]:
        """Say how much memory it took, a quarter of the views after the other."""
        yield f"{Sample.head()}   (memory in MiB)"
        for share in (0.05, 0.25, 0.5, 0.75, 1.0):
            if (found := self.at(share)) is not None:
                yield found.line(f"{share:.0%}")
        yield self.most().line("most")
        spent: defaultdict[str, float] = defaultdict(float)
        for kind, seconds in self.cpu.values():
            spent[kind] += seconds
        yield "CPU seconds: " + "  ".join(f"{kind} {seconds:.0f}" for kind, seconds in spent.items())
        yield "  ".join(f"{name} {seconds:.1f} s" for name, seconds in sorted(self.marks.items(), key=lambda m: m[1]))


def _files(folder: Path) -> set[str]:
    return {one.name for one in os.scandir(folder) if one.name.endswith(".parquet")} if folder.is_dir() else set()


def _lives(process: psutil.Process) -> bool:
    # Where nobody waits for its end, a process that has ended stays a zombie.
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _rows(folder: Path, counted: dict[str, int]) -> int:
    """Count stored rows; a partition that is just brought into one file counts once."""
    rows: dict[str, tuple[int, int]] = {}
    for name in _files(folder):
        if name not in counted:
            with suppress(OSError, pa.ArrowException):
                counted[name] = pq.read_metadata(folder / name).num_rows
        whole, blocks = rows.get(name[:DIGITS], (0, 0))
        number = counted.get(name, 0)
        rows[name[:DIGITS]] = (whole, blocks + number) if "-" in name else (number, blocks)
    return sum(max(pair) for pair in rows.values())


def _resident(pid: int) -> float:
    """Resident memory without what is shared through the object store."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(status.get(name, "0 kB").split()[0]) for name in ("RssAnon", "RssFile")) / 1024


def _store(raylet: int) -> float:
    """What the object store has ever touched of its memory."""
    for link in Path(f"/proc/{raylet}/fd").iterdir():
        with suppress(OSError):
            if "plasma" in os.readlink(link):
                return os.stat(link).st_blocks * 512 / 2**20
    return 0.0


def _surveyed(run: Run) -> str:
    """Survey every partition in this process, without Ray."""
    begun = time.monotonic()
    lineup = resolve(profile(settings=SETTINGS))
    tables = ["views", "captions", "answers/kept", *(role.answers for role in lineup.roles)]
    listed = {table: run.by_partition(table) for table in tables}
    states = [
        partition_status(
            run.with_file_listing({table: files.get(name, []) for table, files in listed.items()}), name, lineup
        )
        for name in sorted(listed["views"])
    ]
    done, views = sum(state.done for state in states), sum(state.views for state in states)
    return f"survey on one core: {time.monotonic() - begun:.1f} s ({done:,} of {views:,} done)"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, default=100_000)
    parser.add_argument("--run", required=True, help="an empty folder, or one that an earlier call has filled")
    parser.add_argument("--whole", action="store_true", help="do not kill the first driver half-way")
    parser.add_argument("--set", action="extend", nargs="+", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(argv)
    settings = [*SETTINGS, *options.set]
    run = open_run(options.run)
    if not run.files("views"):
        begun = time.monotonic()
        fabricate(run, options.views, processes=os.cpu_count() or 1)
        print(f"fabricated {options.views:,} views in {time.monotonic() - begun:.0f} s", flush=True)

    def say(*lines: str) -> None:
        print(*lines, sep="\n", flush=True)

    def job(name: str, *arguments: str, until: float | None = None) -> Watched:
        watched = Watched(run, options.views)
        code = watched.work(*arguments, settings=settings, until=until)
        say("", f"{name}: exit code {code} after {watched.seconds:.1f} s")
        return watched

    say(_surveyed(run))
    if not options.whole:
        say(*job("killed half-way", until=0.5).report(), _surveyed(run))
    last = job("to its end")
    session = (run.read_json("summary/caption.json") or {}).get("this_session", {})
    known = {name: session.get(name) for name in ("views_computed", "views_per_second", "model_calls")}
    loads = {name: model["load_seconds"] for name, model in session.get("models", {}).items()}
    say(*last.said[-12:], *last.report(), f"{known} load seconds {loads}")
    say(*job("with nothing left to do").report(), _surveyed(run))
    say(*job("--status", "--status").said)


if __name__ == "__main__":
    main()
