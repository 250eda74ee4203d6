"""The fault matrix of the caption job: after each fault, every view has exactly one row.

A row of `MATRIX` is a fault. Its scenario runs on a real cluster of separate node processes, and its expectation checks
what the scenario left. Faults share a scenario where one run shows several.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests import faulty
from tests import test_training_faults as training
from tests.clusters import ROOT, nodes
from tests.faults import expectations as expect
from tests.faults import scenarios
from tests.faults.lab import Lab, Seen
from tests.object_store import object_store
from tests.worlds import nearly, rows, stored_ids

pytestmark = [pytest.mark.cluster, pytest.mark.chaos, pytest.mark.timeout(900)]

# Samples per task: about 300 views for every change, 1,000 in `make verify`.
SIZES = {"300": 21, "1000": 90}


@dataclass(frozen=True)
class Fault:
    name: str
    scenario: Callable[[Lab], Seen]
    expect: Callable[[Seen], None]


MATRIX = [
    Fault("a row ends its replica's process", scenarios.poison, expect.ended_its_process(faulty.EXIT)),
    Fault("a row ends it by a segmentation fault", scenarios.poison, expect.ended_its_process(faulty.SEGFAULT)),
    Fault("a row makes the engine raise", scenarios.poison, expect.is_poison(faulty.RAISE, "the device was lost")),
    Fault("a row exhausts memory", scenarios.poison, expect.is_poison(faulty.MEMORY, "MemoryError")),
    Fault("a row hangs", scenarios.poison, expect.is_poison(faulty.HANG, "gave no answer in 6 s")),
    Fault("a replica is killed", scenarios.killed_replica, expect.little_again(1)),
    Fault("a node is lost at 10%", scenarios.lost_nodes, expect.lost_at("10%", 0.1, 0.35)),
    Fault("a node is lost at 50%", scenarios.lost_node, expect.lost_at("50%", 0.5, 0.75)),
    Fault("a node is lost at 90%", scenarios.lost_nodes, expect.lost_at("90%", 0.9, 1.0)),
    Fault("a node is added", scenarios.grown_and_drained, expect.grown),
    Fault("a node is drained, then lost", scenarios.grown_and_drained, expect.drained),
    Fault("the driver is killed", scenarios.killed_driver, expect.resumed(-signal.SIGKILL)),
    Fault("the driver receives SIGTERM", scenarios.stopped_driver, expect.stopped),
    Fault("a second job on the same run", scenarios.stopped_driver, expect.refused),
    Fault("a killed writer left a file that is not Parquet", scenarios.damaged_files, expect.asked_again),
    Fault("a file is truncated", scenarios.damaged_files, expect.asked_again),
    Fault("an empty file, and a temporary one", scenarios.damaged_files, expect.asked_again),
    Fault("the source changed", scenarios.other_source, expect.only_the_new),
    Fault("the lineup changed", scenarios.other_lineup, expect.only_the_new_voters),
    Fault("the object store answers 500", scenarios.troubled_store, expect.survived("500")),
    Fault("the object store does not respond", scenarios.troubled_store, expect.survived("hang")),
    Fault("the object store is slow", scenarios.troubled_store, expect.survived("slow")),
    Fault("the object store refuses", scenarios.refusing_store, expect.ended_by_the_store),
    Fault("the disk is full", scenarios.full_disk, expect.ended_by_the_disk),
    Fault("a voter cannot be loaded", scenarios.missing_voter, expect.failed_by_name),
    Fault("a voter cannot be loaded, and the quorum decides", scenarios.missing_voter, expect.decided_by_quorum),
    Fault("a node is lost in the staged schedule", scenarios.staged, expect.little_again(1)),
    Fault(
        "the head is lost, and the job is submitted to a new cluster",
        scenarios.lost_head,
        expect.resumed(-signal.SIGKILL),
    ),
]


@pytest.fixture(scope="module", params=["300", "1000"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with (
        object_store(buckets=["shop"]) as store,
        pytest.MonkeyPatch.context() as patch,
        nodes(2, store.environment()) as cluster,
    ):
        for name, value in store.environment().items():
            patch.setenv(name, value)
        yield Lab(cluster, store, tmp_path_factory.mktemp("lab"), SIZES[request.param])


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name.replace(" ", "-")) for fault in MATRIX])
def test_fault(lab: Lab, fault: Fault) -> None:
    seen = lab.play(fault.scenario)
    fault.expect(seen)
    assert stored_ids(seen.run) == sorted(seen.reference), "not every view has exactly one row"
    found = {row["view_id"]: row for row in rows(seen.run)}
    for view, row in seen.reference.items():
        if view not in seen.affected:
            assert [found[view]] == nearly([row])


def test_the_readme_lists_every_fault_in_order() -> None:
    table = (ROOT / "caslie_ray/pipeline/README.md").read_text().split("## Faults")[1].split("\n## ")[0]
    named = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    assert named[2:] == [*(fault.name for fault in MATRIX), *(fault.name for fault in training.MATRIX)]
