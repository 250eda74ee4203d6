"""Which checkpoints are found and loaded, and the errors for the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from caslie_ray.engines import CheckpointError, EngineSpec, Request, fingerprint, load_engine, resolve, weight_bytes
from caslie_ray.errors import EngineError
from caslie_ray.prompts import Prompt, render
from tests.engines.conftest import MakeCheckpoint, tiny_spec


@pytest.fixture
def copy(checkpoint: MakeCheckpoint, tmp_path: Path) -> Path:
    """A copy of tiny Llama that may be changed."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in checkpoint("llama").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_an_unknown_engine_is_refused(copy: Path) -> None:
    with pytest.raises(EngineError, match="there is no engine 'nosuch'; there are: transformers"):
        load_engine(tiny_spec(copy, engine="nosuch"))


def test_a_checkpoint_without_a_chat_template_is_refused(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(EngineError, match=f"checkpoint {copy} has no chat template"):
        load_engine(tiny_spec(copy))


def test_pickled_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({"model.embed_tokens.weight": torch.zeros(2, 2)}, copy / "pytorch_model.bin")
    with pytest.raises(EngineError, match=rf"checkpoint {copy} cannot be loaded: .*safetensors"):
        load_engine(tiny_spec(copy))


def test_a_checkpoint_that_lacks_weights_is_refused(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EngineError, match=r"lacks 1 weights, the first is model\.layers\.1\.mlp\.up_proj"):
        load_engine(tiny_spec(copy))


def test_code_of_a_checkpoint_is_not_run(copy: Path) -> None:
    (copy / "evil.py").write_text("raise SystemExit('it ran')")
    config = json.loads((copy / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"},
    }
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(EngineError, match=rf"checkpoint {copy} cannot be loaded: ValueError: .*contains custom code"):
        load_engine(tiny_spec(copy))


def test_an_unsupported_model_family_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(EngineError, match="of the family 't5', which this engine cannot run"):
        load_engine(tiny_spec(copy))


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=f"checkpoint {tmp_path} cannot be loaded"):
        load_engine(tiny_spec(tmp_path))


def test_more_context_than_the_checkpoint_has_is_refused(copy: Path) -> None:
    with pytest.raises(EngineError, match="reads 1024 tokens at most; its context is 1025"):
        load_engine(tiny_spec(copy, context=1025))


@pytest.mark.parametrize("device", ["cuda:99", "mps", "nosuch"])
def test_a_missing_device_is_refused(copy: Path, device: str) -> None:
    with pytest.raises(EngineError, match=device):
        load_engine(tiny_spec(copy, device=device))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"context": 0}, "context is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"context": 8, "max_new_tokens": 8}, "no room for a prompt"),
        ({"dtype": "float64"}, "dtype is 'float64'; it must be one of float32"),
        ({"generation": {"temprature": 0.5}}, "did you mean 'temperature'"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny_spec("anywhere", **settings)


def test_names_of_checkpoints(copy: Path, tmp_path: Path) -> None:
    assert resolve(str(copy)) == (str(copy), True, None)
    assert resolve("some-org/Some.Model-3B") == ("some-org/Some.Model-3B", False, None)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert resolve(str(tmp_path / "model.gguf")) == (str(tmp_path), True, "model.gguf")
    for name in ("nothing", "/no/such/folder", "s3://bucket/model", "./nothing", "", "miniature:../.."):
        with pytest.raises(CheckpointError):
            resolve(name)
    with pytest.raises(CheckpointError, match="no miniature checkpoint 'nosuch'; there are: "):
        resolve("miniature:nosuch")


def test_weight_bytes(copy: Path) -> None:
    assert weight_bytes(str(copy)) == (copy / "model.safetensors").stat().st_size
    assert weight_bytes("some-org/not-on-this-machine") is None


def test_smollm2_chooses_and_writes() -> None:
    spec = EngineSpec("smollm2", context=256, max_new_tokens=8, batch_tokens=1024, device="cpu")
    assert (weight_bytes("smollm2") or 0) > 90_000_000
    assert len(fingerprint(spec)) == 32
    engine = load_engine(spec)
    asked = [
        Request("sun", render("Is {{what}}? Only output yes or no.", what="ice cold")),
        Request("moon", render("Is {{what}}? Only output yes or no.", what="the moon made of green cheese")),
    ]
    for answer in engine.choose(asked, ["yes", "no"]):
        assert answer.failure is None
        assert all(0.02 < share < 0.98 for share in answer.probabilities)
    written = engine.generate([Request("capital", Prompt("What is the capital of France? Answer with one word."))])
    assert "Paris" in written[0].text
    engine.close()
