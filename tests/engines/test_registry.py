"""A new engine is one module and one line of the registry: profiles, plans and jobs then know it by its name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from caslie_ray.engines import EngineSpec, load_engine, registry
from caslie_ray.engines.load_errors import classify
from caslie_ray.engines.memory import describe
from caslie_ray.engines.preflight import preflight
from caslie_ray.errors import EngineError
from caslie_ray.pipeline.placement import pool_plans
from caslie_ray.profiles import ProfileError, load_profile
from caslie_ray.roles import engine_lines, resolve
from tests.worlds import InProcess, caption_here, fresh_run, profile, rows, voter

MODULE = '''
from caslie_ray.engines import Choice, EngineSpec, EngineStats, Generation


class Lengths:
    """Votes yes for captions of some length."""

    def __init__(self) -> None:
        self.calls = 0

    def generate(self, requests):
        self.calls += len(requests)
        return [Generation(one.key, "a text", 1, 2, False) for one in requests]

    def choose(self, requests, choices):
        self.calls += len(requests)
        yes = [0.9 if len(one.prompt.text) % 2 else 0.1 for one in requests]
        return [Choice(one.key, (p, 1 - p), 1, False) for one, p in zip(requests, yes, strict=True)]

    def stats(self):
        return EngineStats(self.calls)

    def close(self) -> None:
        pass


def load(spec: EngineSpec) -> Lengths:
    assert spec.engine == "lengths"
    return Lengths()
'''


@pytest.fixture
def lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is added as the registry says."""
    (tmp_path / "lengths_engine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.ENGINES, "lengths", registry.Registered("lengths_engine", overlap=3))


@pytest.mark.usefixtures("lengths")
def test_an_engine_that_was_added_captions_and_votes(world: Path, tmp_path: Path) -> None:
    settings = ["lineup.captioner.engine=lengths", "votes.schedule=full"]
    chosen = profile(*(voter(name, engine="lengths") for name in ("phi", "llama-3b", "mistral")), settings=settings)
    run = fresh_run(world, tmp_path / "run")
    calls = caption_here(run, chosen, InProcess())
    views = rows(run, "views")
    assert calls == dict.fromkeys(("captioner", "phi", "llama-3b", "mistral"), len(views))
    assert {(row["caption"], row["error"]) for row in rows(run)} == {("a text", None)}
    assert {round(vote["p_yes"], 3) for row in rows(run) for vote in row["votes"]} == {0.1, 0.9}
    roles = resolve(chosen).roles
    assert all("lengths" in line for line in engine_lines(roles))
    assert [plan.slots for plan in pool_plans(roles)] == [3, 3, 3, 3]
    preflight(roles[0].spec)
    assert describe("captioner", roles[0].spec) is None, "its memory is not known"


@pytest.mark.parametrize("name", ["auto", "transformers", "vllm", "mine.engines:load"])
def test_what_a_profile_may_name(name: str) -> None:
    assert load_profile("mini", [f"lineup.captioner.engine={name}"]).lineup.captioner.engine == name


@pytest.mark.parametrize("name", ["lengths", "VLLM", "mine.engines", "'mine:'", ":load", "a b:c", "''"])
def test_an_unknown_engine_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(
        ProfileError, match=r"lineup\.captioner\.engine: there is no engine .* auto, transformers, vllm"
    ):
        load_profile("mini", [f"lineup.captioner.engine={name}"])


def test_a_profile_is_read_without_any_engine_s_libraries() -> None:
    code = (
        "import sys; from caslie_ray.profiles import load_profile;"
        "load_profile('mini', ['lineup.captioner.engine=vllm']);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'vllm', 'ray')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("engine", "kind"), [("json:nosuch", "final"), ("nosuch:load", "elsewhere")], ids=["no function", "no module"]
)
def test_an_engine_that_cannot_be_imported_is_not_retried(engine: str, kind: str) -> None:
    with pytest.raises(EngineError, match="cannot be imported") as caught:
        load_engine(EngineSpec("org/any", engine))
    assert classify(caught.value).kind == kind
