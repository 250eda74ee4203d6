from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from caslie_ray.engines import EngineError, resolve
from caslie_ray.lineup import Role, role_of
from caslie_ray.passes import Models, pass_after_pass
from caslie_ray.placement import PoolDown
from caslie_ray.profiles import FaultSettings, load_profile


class Ledger:
    """Partitions of which passes finish some rows."""

    def __init__(self, rows: dict[str, int], finished: Iterator[int]) -> None:
        self.rows, self._finished = dict(rows), finished
        self.passes: list[tuple[list[str], int]] = []

    def once(self, names: list[str], smaller: int) -> None:
        self.passes.append((names, smaller))
        left = next(self._finished)
        for name in names:
            done = min(left, self.rows[name])
            self.rows[name] -= done
            left -= done

    def look(self, names: list[str]) -> dict[str, int]:
        return {name: self.rows[name] for name in names}


@pytest.mark.parametrize(
    ("finished", "passes", "left"),
    [
        ([9], [(["a", "c"], 0)], 0),
        ([5, 4], [(["a", "c"], 0), (["c"], 0)], 0),
        # Cut short again and again, but never without having done something.
        ([1, 1, 1, 6], [(["a", "c"], 0)] * 4, 0),
        ([0, 1, 0, 8], [(["a", "c"], 0), (["a", "c"], 1), (["a", "c"], 1), (["a", "c"], 2)], 0),
        ([0, 0, 0], [(["a", "c"], 0), (["a", "c"], 1), (["a", "c"], 2)], 9),
    ],
    ids=["one", "rest", "cut", "smaller", "stalled"],
)
def test_passes_go_on_until_nothing_is_left_or_nothing_moves(
    finished: list[int], passes: list[tuple[list[str], int]], left: int
) -> None:
    ledger = Ledger({"a": 5, "b": 0, "c": 4}, iter(finished))
    pass_after_pass(ledger.rows, ledger.once, ledger.look, patience=3)
    assert ledger.passes == passes
    assert sum(ledger.rows.values()) == left


@pytest.fixture
def mute(tmp_path: Path) -> Role:
    """A voter whose checkpoint has no chat template."""
    voter = load_profile("mini").lineup.voters[0]
    folder = Path(shutil.copytree(resolve(voter.checkpoint).location, tmp_path / "mute"))
    role = role_of(voter.model_copy(update={"checkpoint": str(folder)}))
    (folder / "chat_template.jinja").unlink()
    return role


def test_a_model_that_can_never_be_loaded_ends_the_job_before_replicas_start(mute: Role) -> None:
    models = Models(FaultSettings(), [mute])
    with pytest.raises(EngineError, match=r"has no chat template.*use an instruction-tuned checkpoint") as caught:
        models.__enter__()
    assert not isinstance(caught.value, PoolDown)
    assert models.router is None


def test_a_model_that_the_job_can_do_without_is_warned_of(mute: Role, caplog: pytest.LogCaptureFixture) -> None:
    Models(FaultSettings(), [mute], needed={"captioner"})._preflight()
    assert f"{mute.name}: checkpoint {mute.spec.checkpoint} has no chat template" in caplog.text
    with pytest.raises(EngineError):
        Models(FaultSettings(), [replace(mute, name="captioner")], needed={"captioner"})._preflight()
