"""Early exit on every view of the demo's data set, for three seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from caslie_ray.dataset import ingest
from caslie_ray.miniature import WorldSize
from caslie_ray.storage.run import Run, open_run
from tests.worlds import VOTERS, InProcess, caption_here, draw, fresh_run, profile, rows, voter

pytestmark = [pytest.mark.timeout(1800)]
ALL = [voter(name) for name in VOTERS]
# Contexts so short that longer prompts cannot be cut to fit: those votes fail, not retryable.
FAILING = [
    ALL[0], voter("llama-8b", context=120, batch_tokens=240, max_new_tokens=8), ALL[2],
    voter("mistral", context=110, batch_tokens=240, max_new_tokens=8),
    voter("phi", context=100, batch_tokens=240, max_new_tokens=8),
]  # fmt: skip


@pytest.fixture(scope="module", params=[0, 1, 2])
def drawn(request: pytest.FixtureRequest, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    source = draw(folder / "source", WorldSize(), seed=request.param)
    ingest(open_run(str(folder / "run")), [str(source)], profile())
    return folder / "run"


def verdicts(run: Run) -> dict[str, tuple[bool, bool]]:
    return {row["view_id"]: (row["verdict"], row["error"] is None) for row in rows(run)}


@pytest.mark.parametrize("lineup", [ALL, FAILING], ids=["all", "failing"])
def test_early_exit_and_full_votes_agree(
    drawn: Path, tmp_path: Path, ask: InProcess, lineup: list[dict[str, object]]
) -> None:
    run = fresh_run(drawn, tmp_path / "run")
    caption_here(run, profile(*lineup), ask)
    early, votes = verdicts(run), sum(len(row["votes"]) for row in rows(run))
    caption_here(run, profile(*lineup, settings=["votes.schedule=full"]), ask)
    assert verdicts(run) == early
    assert len(early) > 700
    assert votes < 5 * len(early)
    failed = sum(vote["error"] is not None for row in rows(run) for vote in row["votes"])
    assert bool(failed) == (lineup is FAILING)
    assert any(not valid for _, valid in early.values()) == (lineup is FAILING)
