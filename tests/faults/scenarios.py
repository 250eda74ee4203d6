"""What goes wrong while views are captioned. A scenario takes the lab and returns what the fault left."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from caslie_ray.errors import RunError
from caslie_ray.storage.claims import holders
from caslie_ray.storage.run import Run, open_run
from tests import faulty
from tests.clusters import ROOT, until
from tests.faults.lab import SETTINGS, Lab, Seen, answered_of, arguments, at, done_of, model
from tests.worlds import InProcess, caption_here, draw, edit_views, fresh_run, profile, rows, voter


def poison(lab: Lab) -> Seen:
    """Five neighbouring rows, each of which breaks its replica in another way."""
    seen = lab.fresh("poison")
    words = [faulty.EXIT, faulty.SEGFAULT, faulty.RAISE, faulty.MEMORY, faulty.HANG]
    biggest = max(seen.run.files("views"), key=seen.run.count_rows)
    chosen = [row["view_id"] for row in seen.run.read_file(biggest).to_pylist()][: len(words)]
    seen.affected = dict(zip(chosen, words, strict=True))

    def mark(row: dict[str, Any]) -> dict[str, Any] | None:
        word = seen.affected.get(row["view_id"])
        return {**row, "quality_prompt": f"{row['quality_prompt']} {word}"} if word else None

    edit_views(seen.run, mark)
    faults = ["faults.call_timeout_s=6", "faults.tries=1"]
    seen.take(lab.caption(seen, *faults, voters=[model(pool={"min": 2, "max": 2})]))
    return seen


def killed_replica(lab: Lab) -> Seen:
    seen = lab.fresh("replica")
    job = lab.caption(seen)
    at(seen, job, 0.3)
    lab.cluster.replicas()[0].kill()
    seen.take(job)
    return seen


def lost_node(lab: Lab) -> Seen:
    """The node of the replica is lost in the middle and replaced."""
    return _lose(lab, lab.fresh("node"), 0.5)


def lost_nodes(lab: Lab) -> Seen:
    """Nodes are lost near the beginning and the end and replaced while one replica works."""
    return _lose(lab, lab.fresh("nodes"), 0.1, 0.9)


def _lose(lab: Lab, seen: Seen, *shares: float) -> Seen:
    job = lab.caption(seen)
    for share in shares:
        seen.facts[f"{share:.0%}"] = at(seen, job, share) / len(seen.reference)
        lab.cluster.kill(lab.cluster.busy())
        lab.cluster.add()
    seen.take(job)
    return seen


def grown_and_drained(lab: Lab) -> Seen:
    """The job starts on one node; a second is added and gets a replica; then the first is drained and lost."""
    lab.cluster.fill(1)
    seen = lab.fresh("drained")
    slow = model(engine="tests.faulty:slower", pool={"min": 1, "max": 2}, resources={"cpus": 1.5})
    job = lab.caption(seen, voters=[slow])
    at(seen, job, 0.05)
    seen.facts["before"] = len(lab.cluster.replicas())
    first = lab.cluster.workers[0]
    lab.cluster.add()
    until(lambda: len(lab.cluster.replicas()) == 2, what="the second replica")
    seen.facts["after"] = len(lab.cluster.replicas())
    at(seen, job, 0.3)
    lab.cluster.drain(first, 15)
    until(lambda: len(lab.cluster.replicas()) == 1, what="the first replica to end")
    seen.facts["left"] = done_of(seen.run)
    lab.cluster.kill(first)
    seen.take(job)
    return seen


def killed_driver(lab: Lab) -> Seen:
    seen = lab.fresh("driver")
    job = lab.caption(seen)
    at(seen, job, 0.4)
    job.process.kill()
    seen.take(job)
    until(lambda: not lab.cluster.replicas(), what="its replicas to end")
    seen.facts["kept"], seen.facts["answered"] = done_of(seen.run), answered_of(seen.run)
    seen.take(lab.caption(seen))
    return seen


def stopped_driver(lab: Lab) -> Seen:
    """A second job starts while the first works; then the first gets SIGTERM and is submitted again."""
    seen = lab.fresh("stopped")
    job = lab.caption(seen)
    at(seen, job, 0.2)
    second = lab.caption(seen)
    seen.facts["refused"] = second.end()
    seen.facts["went on"] = job.running
    since = time.monotonic()
    job.process.send_signal(signal.SIGTERM)
    until(lambda: not holders(seen.run), what="the lease to be released")
    seen.facts["seconds"] = time.monotonic() - since
    seen.take(job)
    seen.facts["kept"], seen.facts["answered"] = done_of(seen.run), answered_of(seen.run)
    seen.facts["claims"] = holders(seen.run)
    seen.take(lab.caption(seen))
    return seen


def lost_head(lab: Lab) -> Seen:
    seen = lab.fresh("head")
    job = lab.caption(seen)
    at(seen, job, 0.4)
    job.process.kill()
    lab.cluster.lose_head()
    seen.take(job)
    seen.facts["kept"], seen.facts["answered"] = done_of(seen.run), answered_of(seen.run)
    lab.cluster.begin_again()
    lab.cluster.fill(2)
    seen.take(lab.caption(seen))
    return seen


def damaged_files(lab: Lab) -> Seen:
    """Writers that died left a truncated file, one that is not Parquet, an empty one and a temporary one: first in
    `captions`, then in the answers of the same partitions too."""
    seen = lab.captioned("damaged")
    (answers,) = {Path(path).parent for path in Path(seen.run.root).glob("answers/*/*.parquet")}
    first, _, third = map(Path, sorted(seen.run.files("captions"))[:3])
    seen.facts["lost"] = seen.run.count_rows(str(first)) + seen.run.count_rows(str(third))
    _damage(first.parent)
    seen.take(lab.caption(seen))
    seen.facts["asked for captions"] = seen.summary["this_session"]["model_calls"]
    for folder in (first.parent, answers):
        _damage(folder)
    seen.take(lab.caption(seen))
    return seen


def _damage(folder: Path) -> None:
    first, second, third = sorted(folder.glob("[!.]*.parquet"))[:3]
    first.write_bytes(first.read_bytes()[:-100])
    (folder / f"{second.stem}-0123456789abcdef.parquet").write_bytes(b"PAR1 but not for long")
    third.write_bytes(b"")
    (folder / f".{second.name}.1234.tmp").write_bytes(b"half")


def other_source(lab: Lab) -> Seen:
    """Products are added to the source."""
    seen = lab.captioned("products")
    source = draw(lab.folder / "more", replace(lab.size, train=lab.size.train + 2))
    before = set(seen.reference)
    seen.take(lab.cluster.submit("ingest", "--run", seen.run.uri, "--source", str(source)))
    seen.facts["new"] = {row["view_id"] for row in rows(seen.run, "views")} - before
    seen.take(lab.caption(seen))
    seen.facts["asked"] = seen.summary["this_session"]["model_calls"]
    seen.reference = lab.reference_of(seen.run, [model(engine="transformers")])
    return seen


def other_lineup(lab: Lab) -> Seen:
    seen = lab.captioned("lineup")
    others = [model(), voter("phi"), voter("mistral")]
    seen.take(lab.caption(seen, "votes.schedule=full", voters=others))
    seen.facts["asked"] = {name: one["calls"] for name, one in seen.summary["this_session"]["models"].items()}
    copy = fresh_run(lab.done, lab.folder / "lineup-reference")
    caption_here(
        copy,
        profile(model(engine="transformers"), *others[1:], settings=[*SETTINGS, "votes.schedule=full"]),
        InProcess(),
    )
    seen.reference = {row["view_id"]: row for row in rows(copy)}
    return seen


def troubled_store(lab: Lab) -> Seen:
    """While a job works, its object store answers 500, then hangs, then answers late."""
    seen = Seen(open_run(lab.store.uri("shop", "troubled")), lab.reference)
    _upload(lab, seen.run)
    job = lab.caption(seen)
    for share, kind, seconds, delay in ((0.1, "500", 3, 0), (0.4, "hang", 4, 0), (0.7, "slow", 4, 2)):
        at(seen, job, share)
        lab.store.fault(kind, seconds, delay=delay)
        time.sleep(seconds)
        seen.facts[kind] = lab.store.heal()["met"].total()
    seen.take(job)
    return seen


def refusing_store(lab: Lab) -> Seen:
    """In the middle of a job the object store denies writes."""
    seen = Seen(open_run(lab.store.uri("shop", "refusing")), lab.reference)
    _upload(lab, seen.run)
    job = lab.caption(seen)
    at(seen, job, 0.3)
    lab.store.fault("403", only="PUT")
    seen.take(job)
    lab.store.heal()
    seen.facts["kept"], seen.facts["answered"] = done_of(seen.run), answered_of(seen.run)
    seen.take(lab.caption(seen))
    return seen


def full_disk(lab: Lab) -> Seen:
    """The run is on a separate disk that becomes full in the middle; later it has space again."""
    seen = lab.fresh("disk")
    disk, kept = lab.folder / "small", lab.folder / "kept"
    disk.mkdir()
    command = " ".join(f"'{word}'" for word in arguments(open_run(str(disk / "run"))))
    caption = f"{sys.executable} {ROOT}/jobs/caption.py {command}"
    script = f"""
        mount -t tmpfs -o size=40m none {disk} && cp -r {seen.run.root} {disk}/run
        blocks=$(( ($(stat -f -c %a {disk}) - 6) * $(stat -f -c %S {disk}) / 4096 ))
        dd if=/dev/zero of={disk}/filler bs=4k count=$blocks
        {caption}; echo "first $?"
        cp -r {disk}/run {kept}
        rm {disk}/filler
        {caption}; echo "second $?"
        rm -r {seen.run.root} && cp -r {disk}/run {seen.run.root}
    """
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", script], capture_output=True, text=True, timeout=300, check=False
    )
    seen.codes = [int(code) for code in re.findall(r"^(?:first|second) (\d+)$", done.stdout, re.MULTILINE)]
    seen.outputs.append(done.stdout + done.stderr)
    left = open_run(str(kept))
    seen.facts["kept"], seen.facts["answered"] = done_of(left), answered_of(left)
    seen.facts["temporary"] = [path.name for path in kept.rglob("*.tmp")]
    return seen


def missing_voter(lab: Lab) -> Seen:
    """One of three voters cannot be loaded."""
    seen = lab.fresh("voter")
    lineup = [voter("llama-3b"), voter("phi", engine="tests.faulty:refuse"), voter("mistral")]
    seen.take(lab.caption(seen, voters=lineup))
    seen.facts["rows"] = done_of(seen.run)
    seen.take(lab.caption(seen, "faults.missing_voter=quorum", voters=lineup))
    seen.facts["by quorum"] = rows(seen.run)
    whole = [voter("llama-3b"), voter("phi"), voter("mistral")]
    seen.take(lab.caption(seen, voters=whole))
    seen.facts["asked"] = {name: one["calls"] for name, one in seen.summary["this_session"]["models"].items()}
    seen.reference = lab.reference_of(seen.run, whole)
    return seen


def staged(lab: Lab) -> Seen:
    """The staged schedule, one model at a time; the node of the model is lost."""
    seen = lab.fresh("staged")
    job = lab.caption(seen, "schedule=staged")
    until(lambda: not job.running or _answers(seen.run) >= len(seen.reference) // 2, what="half of the answers")
    assert job.running, job.end()[1]
    lab.cluster.kill(lab.cluster.busy())
    seen.take(job)
    return seen


def _answers(run: Run) -> int:
    folders = [info.base_name for info in run.listed(run.path("answers"))]
    try:
        return sum(run.count_rows(path) for folder in folders for path in run.files(f"answers/{folder}"))
    except RunError:
        return 0


def _upload(lab: Lab, run: Run) -> None:
    for path in lab.world.rglob("*.parquet"):
        if "ingest" not in path.parts:
            target = run.path(str(path.relative_to(lab.world)))
            pafs.copy_files(str(path), target, source_filesystem=pafs.LocalFileSystem(), destination_filesystem=run.fs)
