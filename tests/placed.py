"""An engine that notes on which GPU its replica was placed, and answers once a number of replicas are loaded."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from caslie_ray.benchmark._null_engine import NullEngine
from caslie_ray.engines import Choice, EngineSpec, Generation, Request

__all__ = ["EXPECTED", "FOLDER", "load", "nodes_of", "placed"]

FOLDER, EXPECTED = "CASLIE_TEST_PLACED", "expected.json"
_PATIENCE_S = 120.0


class PlacedEngine(NullEngine):
    """Holds its first answer back until the folder has a note of as many replicas of its checkpoint as are expected."""

    def __init__(self, spec: EngineSpec) -> None:
        self._role = spec.checkpoint.rpartition(":")[2]
        self._folder = Path(os.environ[FOLDER])
        note = self._folder / f"{self._role} {os.getpid()} {os.environ['RAY_RAYLET_PID']}"
        note.write_text(f"{os.environ.get('CUDA_VISIBLE_DEVICES', '')} {spec.batch_size}")

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        self._wait()
        return super().generate(requests)

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        self._wait()
        return super().choose(requests, choices)

    def _wait(self) -> None:
        expected = json.loads((self._folder / EXPECTED).read_text())[self._role]
        deadline = time.monotonic() + _PATIENCE_S
        while len(placed(self._folder, self._role)) < expected:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._role}: {len(placed(self._folder, self._role))} replicas are loaded")
            time.sleep(0.05)


def load(spec: EngineSpec) -> PlacedEngine:
    return PlacedEngine(spec)


def placed(folder: Path, role: str) -> list[tuple[str, int]]:
    """GPUs and batch size of each replica of a role."""
    notes = [note.read_text().rsplit(" ", 1) for note in folder.glob(f"{role} *")]
    return sorted((gpus, int(batch)) for gpus, batch in notes)


def nodes_of(folder: Path, role: str) -> list[int]:
    """Process ids of the raylets on whose nodes replicas of a role were placed, in the order of their start."""
    notes = sorted(folder.glob(f"{role} *"), key=lambda note: note.stat().st_mtime)
    return [int(note.name.rsplit(" ", 1)[1]) for note in notes]
