"""The cluster and the data on which faults of the caption job are tried, and what a fault leaves."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from caslie_ray.captioning._partition_status import partition_status
from caslie_ray.errors import RunError
from caslie_ray.miniature import WorldSize
from caslie_ray.roles import resolve
from caslie_ray.storage.run import Run
from tests.clusters import Nodes, Submitted, until
from tests.object_store import ObjectStore
from tests.worlds import InProcess, caption_here, draw, fresh_run, profile, rows, stored_ids, voter

__all__ = ["BLOCK", "SETTINGS", "Lab", "Seen", "answered_of", "arguments", "at", "done_of", "model"]

BLOCK = 8
# Captions come with the drawn data, so that only one model runs: the one that faults hit.
SETTINGS = ["captions.source=dataset", f"storage.block_rows={BLOCK}"]


@dataclass
class Seen:
    """What a scenario left.

    Attributes:
        run: the run.
        reference: the rows of a run without faults, by view.
        affected: views whose rows the fault may change, with the word in their prompts that causes it.
        codes: exit codes of the jobs, in order.
        outputs: what they printed.
        facts: what else the scenario observed.
    """

    run: Run
    reference: dict[str, dict[str, Any]]
    affected: dict[str, str] = field(default_factory=dict)
    codes: list[int] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def take(self, job: Submitted, limit_s: float = 240.0) -> str:
        """Wait for a job to end; note its exit code and output."""
        code, output = job.end(limit_s)
        self.codes.append(code)
        self.outputs.append(output)
        return output

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = self.run.read_json("summary/caption.json")
        return found

    def errors(self) -> dict[str, str]:
        """The error of each affected view, by its word."""
        found = {row["view_id"]: row["error"] or "" for row in rows(self.run)}
        return {word: found[view] for view, word in self.affected.items()}


def model(**settings: Any) -> dict[str, Any]:
    return voter("llama-3b", **{"engine": "tests.faulty:slow", "batch_size": BLOCK, **settings})


def arguments(run: Run, *settings: str, voters: list[dict[str, Any]] | None = None) -> list[str]:
    chosen = json.dumps(voters or [model()])
    return ["--run", run.uri, "--set", f"lineup.voters={chosen}", *SETTINGS, *settings]


class Lab:
    """The cluster, the data, and what the scenarios that ran have left."""

    def __init__(self, cluster: Nodes, store: ObjectStore, folder: Path, train: int) -> None:
        self.cluster, self.store, self.folder = cluster, store, folder
        self.size = WorldSize(train=train, validation=0, ind=4, ood=4)
        self.results: dict[str, Seen] = {}
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
        if scenario.__name__ not in self.results:
            self.cluster.fill(2)
            self.results[scenario.__name__] = scenario(self)
        return self.results[scenario.__name__]

    def fresh(self, name: str) -> Seen:
        """A run with views only."""
        return Seen(fresh_run(self.world, self.folder / name), self.reference)

    def captioned(self, name: str) -> Seen:
        """A complete run."""
        return Seen(fresh_run(self.done, self.folder / name), self.reference)

    def reference_of(self, run: Run, voters: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """The rows of a run with the same views and no faults."""
        copy = fresh_run(Path(run.root), self.folder / f"{Path(run.root).name}-reference")
        for table in ("captions", "answers", "summary"):
            shutil.rmtree(Path(copy.root) / table, ignore_errors=True)
        caption_here(copy, profile(*voters, settings=SETTINGS), self._ask)
        return {row["view_id"]: row for row in rows(copy)}

    def caption(self, seen: Seen, *settings: str, voters: list[dict[str, Any]] | None = None) -> Submitted:
        return self.cluster.submit("caption", *arguments(seen.run, *settings, voters=voters))


def done_of(run: Run) -> int:
    """Number of views with a row on disk."""
    for _ in range(50):
        try:
            return len(set(stored_ids(run)))
        except RunError:  # files are being merged
            time.sleep(0.05)
    return len(set(stored_ids(run)))


def answered_of(run: Run) -> int:
    """Number of views whose answer is on disk, with or without a row."""
    lineup = resolve(profile(model(), settings=SETTINGS))
    partitions = {run.partition(path) for path in run.files("views")}
    found = [partition_status(run, partition, lineup) for partition in partitions]
    return sum(one.views - one.waits.total() for one in found)


def at(seen: Seen, job: Submitted, share: float) -> int:
    """Wait until a share of the views have rows; return the number of rows."""
    total = len(seen.reference)

    def reached() -> int | bool:
        done = done_of(seen.run)
        return done if done >= share * total else not job.running

    done: int = until(reached, what=f"{share:.0%}")
    assert job.running, f"the job ended before {share:.0%}: {job.end()[1][-2000:]}"
    return done
