"""The fault matrix: what goes wrong, what becomes of it, and that every view has its row exactly once all the same.

A row of `MATRIX` is a fault. Several are met in one run where that says as much and takes less time: `scenario`
plays it, on a real cluster of separate node processes, and `expect` looks at what it left.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from caslie_ray.errors import RunError
from caslie_ray.miniature import WorldSize
from caslie_ray.storage.claims import holders
from caslie_ray.storage.run import Run, open_run
from tests import faulty
from tests import test_training_faults as training
from tests.clusters import ROOT, Nodes, Submitted, nodes, until
from tests.object_store import ObjectStore, object_store
from tests.worlds import InProcess, caption_here, draw, edit_views, fresh_run, profile, rows, stored_ids, voter

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(900)]

# Samples a task: some 300 views for every change, 1,000 in `make verify`.
SIZES = {"300": 21, "1000": 90}
BLOCK = 8
# Captions come with the drawn data, so that a single model answers and can be hit.
SETTINGS = ["captions.source=dataset", f"storage.block_rows={BLOCK}"]


@dataclass
class Seen:
    """What a scenario has left.

    Attributes:
        run: the run.
        reference: the rows of an undisturbed run, by view.
        affected: views that the fault may mark.
        codes: exit codes of the jobs, in order.
        said: what they said.
        facts: what else was seen.
    """

    run: Run
    reference: dict[str, dict[str, Any]]
    affected: dict[str, str] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def take(self, job: Submitted, limit_s: float = 240.0) -> str:
        """Wait for a job's end and note it."""
        code, said = job.end(limit_s)
        self.codes.append(code)
        self.said.append(said)
        return said

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = self.run.read_json("summary/caption.json")
        return found

    def errors(self) -> dict[str, str]:
        """The error of each view that was marked, by the word that marked it."""
        found = {row["view_id"]: row["error"] or "" for row in rows(self.run)}
        return {word: found[view] for view, word in self.affected.items()}


def model(**settings: Any) -> dict[str, Any]:
    return voter("llama-3b", **{"engine": "tests.faulty:slow", "batch_size": BLOCK, **settings})


def arguments(run: Run, *settings: str, voters: list[dict[str, Any]] | None = None) -> list[str]:
    chosen = json.dumps(voters or [model()])
    return ["--run", run.uri, "--set", f"lineup.voters={chosen}", *SETTINGS, *settings]


class Lab:
    """The cluster, the world, and what the scenarios that were played have left."""

    def __init__(self, cluster: Nodes, store: ObjectStore, folder: Path, train: int) -> None:
        self.cluster, self.store, self.folder = cluster, store, folder
        self.size = WorldSize(train=train, validation=0, ind=4, ood=4)
        self.played: dict[str, Seen] = {}
        self.world = folder / "world"
        ingested = cluster.submit(
            "ingest", "--run", str(self.world), "--source", str(draw(folder / "source", self.size))
        )
        assert ingested.end()[0] == 0, ingested.end()[1]
        self._ask = InProcess()
        reference = fresh_run(self.world, folder / "reference")
        caption_here(reference, profile(model(engine="transformers"), settings=SETTINGS), self._ask)
        self.reference = {row["view_id"]: row for row in rows(reference)}
        self.done = folder / "reference"

    def play(self, scenario: Callable[[Lab], Seen]) -> Seen:
        if scenario.__name__ not in self.played:
            self.cluster.fill(2)
            self.played[scenario.__name__] = scenario(self)
        return self.played[scenario.__name__]

    def fresh(self, name: str) -> Seen:
        """A run with views and nothing else."""
        return Seen(fresh_run(self.world, self.folder / name), self.reference)

    def captioned(self, name: str) -> Seen:
        """A run that is complete."""
        return Seen(fresh_run(self.done, self.folder / name), self.reference)

    def reference_of(self, run: Run, voters: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The rows that an undisturbed run with the views of this one gives."""
        copy = fresh_run(Path(run.root), self.folder / f"{Path(run.root).name}-reference")
        for table in ("captions", "answers", "summary"):
            shutil.rmtree(Path(copy.root) / table, ignore_errors=True)
        caption_here(copy, profile(*voters, settings=SETTINGS), self._ask)
        return {row["view_id"]: row for row in rows(copy)}

    def caption(self, seen: Seen, *settings: str, voters: list[dict[str, Any]] | None = None) -> Submitted:
        return self.cluster.submit("caption", *arguments(seen.run, *settings, voters=voters))


@pytest.fixture(scope="module", params=["300", pytest.param("1000", marks=pytest.mark.verify)])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with (
        object_store(buckets=["shop"]) as store,
        pytest.MonkeyPatch.context() as patch,
        nodes(2, store.environment()) as cluster,
    ):
        for name, value in store.environment().items():
            patch.setenv(name, value)
        yield Lab(cluster, store, tmp_path_factory.mktemp("lab"), SIZES[request.param])


def done_of(run: Run) -> int:
    """Views that have a row on disk."""
    for _ in range(50):
        try:
            return len(set(stored_ids(run)))
        except RunError:  # files are being brought together
            time.sleep(0.05)
    return len(set(stored_ids(run)))


def at(seen: Seen, job: Submitted, share: float) -> int:
    """Wait until a share of the views has its row; return how many have."""
    total = len(seen.reference)

    def reached() -> int | bool:
        done = done_of(seen.run)
        return done if done >= share * total else not job.running

    done: int = until(reached, what=f"{share:.0%}")
    assert job.running, f"it ended before {share:.0%}: {job.end()[1][-2000:]}"
    return done


# --- scenarios ---------------------------------------------------------------------------------------------------


def poison(lab: Lab) -> Seen:
    """Five rows next to each other, each of which ends its replica in another way."""
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


def lost_nodes(lab: Lab) -> Seen:
    """Both nodes are lost one after the other, and others come, while one replica works."""
    seen = lab.fresh("nodes")
    job = lab.caption(seen)
    for share in (0.1, 0.5, 0.9):
        seen.facts[f"{share:.0%}"] = at(seen, job, share) / len(seen.reference)
        lab.cluster.kill(lab.cluster.busy())
        lab.cluster.add()
    seen.take(job)
    return seen


def grown_and_drained(lab: Lab) -> Seen:
    """Begun on one node; another is added and has a replica; then the first is announced to be taken away, and is."""
    lab.cluster.fill(1)
    seen = lab.fresh("drained")
    job = lab.caption(seen, voters=[model(pool={"min": 1, "max": 2}, resources={"cpus": 1.5})])
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
    seen.facts["kept"] = done_of(seen.run)
    seen.take(lab.caption(seen))
    return seen


def stopped_driver(lab: Lab) -> Seen:
    """A second job comes while the first works; then the first is told to end, and submitted again."""
    seen = lab.fresh("stopped")
    job = lab.caption(seen)
    at(seen, job, 0.2)
    second = lab.caption(seen)
    seen.facts["refused"] = second.end()
    seen.facts["went on"] = job.running
    since = time.monotonic()
    job.process.send_signal(signal.SIGTERM)
    until(lambda: not holders(seen.run), what="the run to be released")
    seen.facts["seconds"] = time.monotonic() - since
    seen.take(job)
    seen.facts["kept"] = done_of(seen.run)
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
    seen.facts["kept"] = done_of(seen.run)
    lab.cluster.begin_again()
    lab.cluster.fill(2)
    seen.take(lab.caption(seen))
    return seen


def damaged_files(lab: Lab) -> Seen:
    """Writers that died have left a file cut short, one of no Parquet at all, an empty one and a temporary one."""
    seen = lab.captioned("damaged")
    first, second, third = map(Path, sorted(seen.run.files("captions"))[:3])
    seen.facts["lost"] = seen.run.count_rows(str(first)) + seen.run.count_rows(str(third))
    first.write_bytes(first.read_bytes()[:-100])
    (second.parent / f"{second.stem}-0123456789abcdef.parquet").write_bytes(b"PAR1 but not for long")
    third.write_bytes(b"")
    (second.parent / f".{second.name}.1234.tmp").write_bytes(b"half")
    seen.take(lab.caption(seen))
    return seen


def other_source(lab: Lab) -> Seen:
    """Products are added to the source; then the lineup changes."""
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
    """An object store that answers 500, says nothing, and answers late, one after the other, while a job works."""
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
    """It lets nobody write any more, in the middle of a job."""
    seen = Seen(open_run(lab.store.uri("shop", "refusing")), lab.reference)
    _upload(lab, seen.run)
    job = lab.caption(seen)
    at(seen, job, 0.3)
    lab.store.fault("403", only="PUT")
    seen.take(job)
    lab.store.heal()
    seen.facts["kept"] = done_of(seen.run)
    seen.take(lab.caption(seen))
    return seen


def full_disk(lab: Lab) -> Seen:
    """The run lies on a disk of its own that is full in the middle; then it has room again."""
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
    said = done.stdout + done.stderr
    seen.codes = [int(code) for code in re.findall(r"^(?:first|second) (\d+)$", done.stdout, re.MULTILINE)]
    seen.said.append(said)
    seen.facts["kept"] = done_of(open_run(str(kept)))
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
    """One model at a time; the node of it is lost."""
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


# --- what is expected --------------------------------------------------------------------------------------------


def is_poison(word: str, reason: str) -> Callable[[Seen], None]:
    def look(seen: Seen) -> None:
        assert seen.codes == [0], seen.said[-1][-2000:]
        assert reason in seen.errors()[word]

    return look


def ended_its_process(word: str) -> Callable[[Seen], None]:
    def look(seen: Seen) -> None:
        is_poison(word, "ended its process")(seen)
        # The second of two that no answer came between may be the pool's fault: it is asked again by the next run.
        assert any(seen.errors()[one].count("poison: ") for one in (faulty.EXIT, faulty.SEGFAULT))

    return look


def complete(seen: Seen) -> None:
    assert seen.codes == [0], seen.said[-1][-2000:]
    assert all(row["error"] is None for row in rows(seen.run))


def little_again(times: int) -> Callable[[Seen], None]:
    """At most what was in hand, the batch of the replica and the blocks of the tasks, was asked again each time."""

    def look(seen: Seen) -> None:
        complete(seen)
        again = seen.summary["this_session"]["model_calls"] - len(seen.reference)
        assert 0 <= again <= times * 3 * BLOCK
        assert sum(one["replicas_lost"] for one in seen.summary["this_session"]["models"].values()) >= min(times, 1)

    return look


def lost_at(share: str, low: float, high: float) -> Callable[[Seen], None]:
    def look(seen: Seen) -> None:
        little_again(3)(seen)
        assert low <= seen.facts[share] <= high

    return look


def grown(seen: Seen) -> None:
    complete(seen)
    assert (seen.facts["before"], seen.facts["after"]) == (1, 2)


def drained(seen: Seen) -> None:
    complete(seen)
    assert seen.facts["left"] < len(seen.reference), "it was over before the node was taken away"
    session = seen.summary["this_session"]
    assert session["models"]["llama-3b"]["replicas_lost"] == 0, "it waited for the node's end"
    assert "its node will be taken away: another replica is being started" in seen.said[-1]
    assert session["model_calls"] - len(seen.reference) <= 2 * BLOCK


def resumed(first: int) -> Callable[[Seen], None]:
    """The first job ended with a code; the second did what was left and nothing else."""

    def look(seen: Seen) -> None:
        assert seen.codes == [first, 0], seen.said[-1][-2000:]
        assert 0 < seen.facts["kept"] < len(seen.reference)
        assert seen.summary["this_session"]["model_calls"] == len(seen.reference) - seen.facts["kept"]
        assert all(row["error"] is None for row in rows(seen.run))

    return look


def stopped(seen: Seen) -> None:
    resumed(3)(seen)
    assert "run the same command again" in seen.said[0]
    # `ray job stop` kills after 3 seconds. What follows the release is Ray's own shutdown, which may be cut short.
    assert seen.facts["seconds"] < 3, "the run was not released before a stopped job is killed"
    assert seen.facts["claims"] == []


def refused(seen: Seen) -> None:
    code, said = seen.facts["refused"]
    assert code == 1
    assert re.search(r"is held by caption \(process \d+ on .*one job at a time", said)
    assert seen.facts["went on"]


def asked_again(seen: Seen) -> None:
    complete(seen)
    assert seen.summary["this_session"]["model_calls"] == seen.facts["lost"]


def only_the_new(seen: Seen) -> None:
    assert seen.codes == [0, 0], seen.said[-1][-2000:]
    assert seen.facts["asked"] == len(seen.facts["new"]) > 0


def only_the_new_voters(seen: Seen) -> None:
    complete(seen)
    assert seen.facts["asked"] == {"llama-3b": 0, "phi": len(seen.reference), "mistral": len(seen.reference)}


def survived(kind: str) -> Callable[[Seen], None]:
    def look(seen: Seen) -> None:
        complete(seen)
        assert seen.facts[kind] > 0, "the store was never asked while it failed"

    return look


def ended_by_the_store(seen: Seen) -> None:
    resumed(1)(seen)
    assert "ACCESS_DENIED" in seen.said[0]
    assert "captions/" in seen.said[0].splitlines()[-1]


def ended_by_the_disk(seen: Seen) -> None:
    resumed(1)(seen)
    assert "No space left on device" in seen.said[0]
    assert seen.facts["temporary"] == []


def failed_by_name(seen: Seen) -> None:
    assert seen.codes[0] == 1
    assert "phi (miniature:voter-phi) cannot be started" in seen.said[0].splitlines()[-1]
    assert seen.facts["rows"] == 0


def decided_by_quorum(seen: Seen) -> None:
    assert seen.codes[1:] == [0, 0], seen.said[-1][-2000:]
    for row in seen.facts["by quorum"]:
        assert row["error"] is None
        assert {vote["voter"] for vote in row["votes"] if vote["answer"]} <= {"llama-3b", "mistral"}
    asked = seen.facts["asked"]
    assert asked["phi"] > 0
    assert asked["llama-3b"] == asked["mistral"] == 0


@dataclass(frozen=True)
class Fault:
    name: str
    scenario: Callable[[Lab], Seen]
    expect: Callable[[Seen], None]


MATRIX = [
    Fault("a row ends its replica's process", poison, ended_its_process(faulty.EXIT)),
    Fault("a row ends it by a segmentation fault", poison, ended_its_process(faulty.SEGFAULT)),
    Fault("a row makes the engine raise", poison, is_poison(faulty.RAISE, "the device was lost")),
    Fault("a row takes more memory than there is", poison, is_poison(faulty.MEMORY, "MemoryError")),
    Fault("a row hangs", poison, is_poison(faulty.HANG, "gave no answer in 6 s")),
    Fault("a replica is killed", killed_replica, little_again(1)),
    Fault("a node is lost at 10%", lost_nodes, lost_at("10%", 0.1, 0.35)),
    Fault("a node is lost at 50%", lost_nodes, lost_at("50%", 0.5, 0.75)),
    Fault("a node is lost at 90%", lost_nodes, lost_at("90%", 0.9, 1.0)),
    Fault("a node is added", grown_and_drained, grown),
    Fault("a node is drained, then lost", grown_and_drained, drained),
    Fault("the driver is killed", killed_driver, resumed(-signal.SIGKILL)),
    Fault("the driver is told to end", stopped_driver, stopped),
    Fault("a second job on the same run", stopped_driver, refused),
    Fault("a dead writer left a file that is no Parquet", damaged_files, asked_again),
    Fault("a file was cut short", damaged_files, asked_again),
    Fault("an empty file, and a temporary one", damaged_files, asked_again),
    Fault("the source changed", other_source, only_the_new),
    Fault("the lineup changed", other_lineup, only_the_new_voters),
    Fault("the object store answers 500", troubled_store, survived("500")),
    Fault("the object store says nothing", troubled_store, survived("hang")),
    Fault("the object store is slow", troubled_store, survived("slow")),
    Fault("the object store refuses", refusing_store, ended_by_the_store),
    Fault("the disk is full", full_disk, ended_by_the_disk),
    Fault("a voter cannot be loaded", missing_voter, failed_by_name),
    Fault("a voter cannot be loaded, and the quorum decides", missing_voter, decided_by_quorum),
    Fault("a node is lost in the staged schedule", staged, little_again(1)),
    Fault("the head is lost, and the job submitted to a new cluster", lost_head, resumed(-signal.SIGKILL)),
]


# What they show is shown for every change as well, by less: in tests/captioning, tests/storage/test_stores.py and by
# the other losses of nodes.
LONG = (other_lineup, missing_voter, refusing_store, staged)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            fault, id=fault.name.replace(" ", "-"), marks=[pytest.mark.verify] if fault.scenario in LONG else []
        )
        for fault in MATRIX
    ],
)
def test_fault(lab: Lab, fault: Fault) -> None:
    seen = lab.play(fault.scenario)
    fault.expect(seen)
    assert stored_ids(seen.run) == sorted(seen.reference), "not every view has its row exactly once"
    whole = {row["view_id"]: row for row in rows(seen.run)}
    for view, row in seen.reference.items():
        if view not in seen.affected:
            # Batches of other shapes move the last bits of probabilities.
            near = [{**vote, "p_yes": pytest.approx(vote["p_yes"], abs=1e-4)} for vote in row["votes"]]
            assert whole[view] == {**row, "votes": near}


def test_the_readme_has_the_whole_table() -> None:
    table = (ROOT / "README.md").read_text().split("### What can go wrong, and what becomes of it")[1].split("###")[0]
    named = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert named[2:] == [*(fault.name for fault in MATRIX), *(fault.name for fault in training.MATRIX)]
