"""Runs of the drawn catalogue, and profiles with small lineups."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pytest

from caslie_ray.captioning._caption_work import CaptionWork, caption_partition
from caslie_ray.captioning._merge import merge_partition
from caslie_ray.engines import Choice, Engine, EngineSpec, Generation, Request, load_engine
from caslie_ray.miniature import WorldSize, write_dataset
from caslie_ray.pipeline.work import Ask
from caslie_ray.profiles import Profile, load_profile
from caslie_ray.roles import Role, resolve
from caslie_ray.storage.run import Run, open_run

SMALL = WorldSize(train=2, validation=0, ind=1, ood=1)
VOTERS = ("llama-3b", "llama-8b", "vision", "mistral", "phi")


def voter(name: str, **settings: Any) -> dict[str, Any]:
    """A voter of the miniature lineup, in the form of a profile."""
    return {
        "name": name, "checkpoint": f"miniature:voter-{name}", "context": 1024, "batch_size": 32,
        "resources": {"cpus": 0.2}, **settings,
    }  # fmt: skip


def profile(*voters: dict[str, Any], settings: Sequence[str] = ()) -> Profile:
    """The mini profile with these voters; the first three of the lineup where none are given."""
    chosen = list(voters) or [voter(name) for name in VOTERS[:3]]
    return load_profile(
        "mini", [f"lineup.voters={json.dumps(chosen)}", "lineup.captioner.resources.cpus=0.2", *settings]
    )


def fresh_run(world: Path, path: Path) -> Run:
    """A copy of a run, so that a test may write to it."""
    shutil.copytree(world, path)
    return open_run(str(path))


def draw(path: Path, size: WorldSize = SMALL, seed: int = 0) -> Path:
    """Draw a data set; return its file."""
    return write_dataset(path, size, seed)


def rows(run: Run, table: str = "captions") -> list[dict[str, Any]]:
    """All rows of a table, by their first column."""
    found: list[dict[str, Any]] = run.read(table).to_pylist()
    first = run.read(table).schema.names[0]
    return sorted(found, key=lambda row: str(row[first]))


def nearly(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `captions` to compare others with: batches of other shapes change the last bits of probabilities."""

    def near(vote: dict[str, Any]) -> dict[str, Any]:
        return vote if vote["p_yes"] is None else {**vote, "p_yes": pytest.approx(vote["p_yes"], abs=1e-4)}

    return [{**row, "votes": [near(vote) for vote in row["votes"] or ()]} for row in found]


def stored_ids(run: Run) -> list[str]:
    """The view id of each row in the files of `captions`, duplicates included."""
    return sorted(
        view for path in run.files("captions") for view in run.read_file(path, ["view_id"])["view_id"].to_pylist()
    )


def edit_views(run: Run, change: Any) -> list[str]:
    """Rewrite views: ``change(row)`` returns a new row or None to keep it; return the changed ids."""
    changed: list[str] = []
    for path in run.files("views"):
        table = run.read_file(path)
        new = []
        for row in table.to_pylist():
            other = change(dict(row))
            if other is not None:
                changed.append(other["view_id"])
            new.append(other or row)
        run.write("views", run.partition(path), pa.Table.from_pylist(new, schema=table.schema))
    return changed


def load_on_cpu(spec: EngineSpec) -> Engine:
    """An engine for a pool that was given a share of a GPU which is declared but not there."""
    return load_engine(replace(spec, engine="transformers", device="cpu"))


class CountingAsk(Ask, Protocol):
    """An `Ask` that counts requests by model."""

    calls: dict[str, int]


class InProcess:
    """An `Ask` with real engines in this process, which counts the requests to each model."""

    def __init__(self) -> None:
        self._engines: dict[str, Engine] = {}
        self.calls: dict[str, int] = {}

    def _engine(self, role: Role, requests: Sequence[Request]) -> Engine:
        self.calls[role.name] = self.calls.get(role.name, 0) + len(requests)
        if role.fingerprint not in self._engines:
            self._engines[role.fingerprint] = load_engine(role.spec)
        return self._engines[role.fingerprint]

    def generate(self, role: Role, requests: Sequence[Request]) -> list[Generation]:
        return self._engine(role, requests).generate(requests)

    def choose(self, role: Role, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        return self._engine(role, requests).choose(requests, choices)


def caption_here(run: Run, chosen: Profile, ask: CountingAsk) -> dict[str, int]:
    """Caption a run as the streamed schedule does, in this process; return the requests by model."""
    ask.calls = {}
    lineup = resolve(chosen)
    work = CaptionWork(run, lineup, chosen.storage.block_rows, lineup.names)
    for name in sorted({run.partition(path) for path in run.files("views")}):
        list(caption_partition(work, name, ask))
        merge_partition(run, name, lineup)
    return dict(ask.calls)


__all__ = [
    "SMALL",
    "VOTERS",
    "InProcess",
    "caption_here",
    "draw",
    "edit_views",
    "fresh_run",
    "load_on_cpu",
    "nearly",
    "profile",
    "rows",
    "stored_ids",
    "voter",
]
