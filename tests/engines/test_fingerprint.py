"""A fingerprint changes with the answers, and with nothing else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from caslie_ray.engines import CheckpointError, EngineSpec, fingerprint
from caslie_ray.engines.fingerprint import CHUNK, CHUNKS

SPEC = EngineSpec("placeholder", context=128, max_new_tokens=8)


@pytest.fixture
def spec(tmp_path: Path) -> EngineSpec:
    """A spec of a folder that looks like a checkpoint."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "model.safetensors").write_bytes(bytes(1000))
    (folder / "README.md").write_text("read me")
    return replace(SPEC, checkpoint=str(folder))


def test_it_is_stable_and_short(spec: EngineSpec) -> None:
    assert fingerprint(spec) == fingerprint(spec)
    assert len(fingerprint(spec)) == 32
    assert int(fingerprint(spec), 16) >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "bfloat16"},
        {"context": 256},
        {"max_new_tokens": 9},
        {"generation": {"repetition_penalty": 1.1}},
    ],
)
def test_it_changes_with_everything_that_affects_the_answer(spec: EngineSpec, change: dict[str, object]) -> None:
    assert fingerprint(replace(spec, **change)) != fingerprint(spec)  # type: ignore[arg-type]  # names checked by it


@pytest.mark.parametrize(
    "change",
    [{"batch_size": 3}, {"batch_tokens": 99}, {"device": "cuda"}, {"engine": "vllm"}, {"revision": "x"}],
)
def test_it_does_not_change_with_how_it_is_run(spec: EngineSpec, change: dict[str, object]) -> None:
    assert fingerprint(replace(spec, **change)) == fingerprint(spec)  # type: ignore[arg-type]  # names checked by it


@pytest.mark.parametrize("name", ["config.json", "chat_template.jinja", "model.safetensors", "generation_config.json"])
def test_it_changes_with_the_checkpoint(spec: EngineSpec, name: str) -> None:
    before = fingerprint(spec)
    (Path(spec.checkpoint) / name).write_bytes(b"other")
    assert fingerprint(spec) != before


def test_it_does_not_change_with_documentation_or_location(spec: EngineSpec, tmp_path: Path) -> None:
    before = fingerprint(spec)
    (Path(spec.checkpoint) / "README.md").write_text("changed")
    (Path(spec.checkpoint) / "training.log").write_text("new")
    moved = Path(spec.checkpoint).rename(tmp_path / "elsewhere")
    assert fingerprint(replace(spec, checkpoint=str(moved))) == before


@pytest.mark.parametrize("place", [0, CHUNK * CHUNKS, -1])
def test_large_weights_are_read_in_parts(spec: EngineSpec, place: int) -> None:
    weights = Path(spec.checkpoint) / "model.safetensors"
    size = 2 * CHUNK * CHUNKS
    with weights.open("wb") as file:
        file.truncate(size)
    before = fingerprint(spec)
    with weights.open("r+b") as file:
        file.seek(place % size)
        file.write(b"x")
    assert (fingerprint(spec) != before) == (place != CHUNK * CHUNKS)  # a single byte between two parts is not seen


def test_hub_ids_are_identified_by_their_commit() -> None:
    one = replace(SPEC, checkpoint="some-org/model", revision="a" * 40)
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(replace(one, revision="b" * 40))
    assert fingerprint(one) != fingerprint(replace(one, checkpoint="some-org/other"))


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        fingerprint(replace(SPEC, checkpoint=str(tmp_path)))


def test_it_needs_no_torch(spec: EngineSpec) -> None:
    program = (
        "import sys; from caslie_ray.engines import EngineSpec, fingerprint, weight_bytes; "
        f"print(fingerprint(EngineSpec({spec.checkpoint!r}, context=128, max_new_tokens=8))); "
        f"weight_bytes({spec.checkpoint!r}); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'ray')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, fingerprint(spec)), done.stderr
