"""LoRA adapters that cannot be used are refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from caslie_ray.engines import EngineSpec, LoraShape, fingerprint, load_engine
from caslie_ray.engines._lora_adapters import read_adapters
from caslie_ray.errors import EngineError
from tests.engines.adapters import BODY, HEAD, make_adapter, silence
from tests.engines.conftest import MakeCheckpoint, tiny_spec


@pytest.fixture
def spec(checkpoint: MakeCheckpoint, tmp_path: Path) -> EngineSpec:
    """A tiny checkpoint with an adapter on its body and head."""
    folder = make_adapter(checkpoint("llama"), tmp_path / "adapter", (*BODY, *HEAD), rank=4)
    return tiny_spec(checkpoint("llama"), adapters={"mine": folder})


def test_an_adapter_reports_its_shape_and_whether_it_changes_answers(spec: EngineSpec, tmp_path: Path) -> None:
    adapter = read_adapters(spec.adapters)["mine"]
    assert adapter.lora == LoraShape(tuple(sorted((*BODY, *HEAD))), 4)
    assert adapter.changes_answers()
    silence(adapter.path, "lora_B")
    assert not adapter.changes_answers()


def test_a_fingerprint_depends_on_the_adapter(spec: EngineSpec) -> None:
    base, adapted = fingerprint(spec), fingerprint(spec, "mine")
    assert base == fingerprint(replace(spec, adapters={}))
    assert base != adapted
    silence(spec.adapters["mine"], "lora_B")
    assert fingerprint(spec, "mine") not in (base, adapted)


def test_a_folder_without_an_adapter_is_refused(spec: EngineSpec, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"adapter empty: .* has no adapter_config\.json"):
        load_engine(replace(spec, adapters={"empty": str(tmp_path)}))
    folder = Path(spec.adapters["mine"])
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(EngineError, match=r"adapter mine: .*adapter_model\.safetensors cannot be read"):
        load_engine(spec)
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(EngineError, match=r"has no adapter_model\.safetensors; save it with PEFT"):
        load_engine(spec)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"r": 4}', "cannot be read"),
        ('{"peft_type": "IA3", "r": 4}', "peft_type IA3"),
        ('{"peft_type": "LORA", "r": 4, "bias": "all"}', "changes weights of its base .bias all"),
        ('{"peft_type": "LORA", "r": 4, "init_lora_weights": "pissa"}', "init_lora_weights pissa"),
    ],
)
def test_what_is_no_lora_adapter_is_refused(spec: EngineSpec, written: str, said: str) -> None:
    (Path(spec.adapters["mine"]) / "adapter_config.json").write_text(written)
    with pytest.raises(EngineError, match=f"adapter mine: .*{said}"):
        load_engine(spec)


def test_an_adapter_of_another_checkpoint_is_refused(spec: EngineSpec, checkpoint: MakeCheckpoint) -> None:
    with pytest.raises(EngineError, match=r"adapter mine \(.*\) does not fit .*phi3"):
        load_engine(replace(spec, checkpoint=str(checkpoint("phi3"))))
    weights = Path(spec.adapters["mine"]) / "adapter_model.safetensors"
    held = load_file(weights)
    save_file({name: value for name, value in held.items() if "lm_head.lora_B" not in name}, weights)
    with pytest.raises(EngineError, match=r"adapter mine \(.*\) does not fit .*llama, it lacks .*lm_head\.lora_B"):
        load_engine(spec)
    save_file(held, weights)
    config = Path(spec.adapters["mine"]) / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "target_modules": ["q_proj"]}))
    with pytest.raises(EngineError, match=r"adapter mine \(.*\) does not fit .*llama, which has no "):
        load_engine(spec)
