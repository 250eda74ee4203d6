"""Which engine runs a checkpoint, where the profile leaves it open."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from caslie_ray.engines import CheckpointError, EngineSpec, LoraShape
from caslie_ray.engines.selection import choose_engine
from caslie_ray.errors import EngineError
from tests.engines.conftest import MakeCheckpoint, tiny_spec

VOTER = EngineSpec("miniature:voter-phi", engine="auto", context=512, device="cpu")


@pytest.mark.parametrize("name", ["transformers", "vllm", "tests.faulty:load"])
def test_an_engine_that_is_named_is_taken(name: str) -> None:
    spec = replace(VOTER, engine=name)
    assert choose_engine(spec) == (spec, "")


def test_without_vllm_it_is_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_engine(VOTER) == (replace(VOTER, engine="transformers"), "vLLM is not installed")


def test_a_gpu_without_vllm_is_logged_as_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    choose_engine(VOTER)
    assert not caplog.records
    choose_engine(replace(VOTER, device="cuda", gpus=0.5))
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "caslie_ray.engines.vllm", None)
    choose_engine(replace(VOTER, device="cuda", gpus=0.5))
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert all("pip install '.[vllm]'" in record.getMessage() for record in caplog.records)


def test_a_vllm_that_cannot_be_imported_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "caslie_ray.engines.vllm", None)
    chosen, reason = choose_engine(VOTER)
    assert chosen.engine == "transformers"
    assert reason.startswith("vLLM cannot be imported here: ")


@pytest.mark.vllm
def test_it_is_vllm_where_that_supports_the_checkpoint(checkpoint: MakeCheckpoint) -> None:
    assert choose_engine(VOTER) == (replace(VOTER, engine="vllm"), "vLLM supports it")
    mllama = tiny_spec(checkpoint("mllama"), engine="auto")
    chosen, reason = choose_engine(mllama)
    assert chosen == replace(mllama, engine="transformers")
    assert reason.endswith("has no MllamaForConditionalGeneration")


@pytest.mark.vllm
def test_an_unreadable_checkpoint_does_not_rule_out_vllm(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint("llama"), tmp_path / "copy"))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(EngineError, match="has no chat template"):
        choose_engine(tiny_spec(folder, engine="auto"))
    (folder / "config.json").write_text("no JSON")
    with pytest.raises(CheckpointError, match=f"checkpoint {folder} cannot be read: "):
        choose_engine(tiny_spec(folder, engine="auto"))
    with pytest.raises(CheckpointError, match="no folder"):
        choose_engine(replace(VOTER, checkpoint="nowhere"))


@pytest.mark.parametrize(("engine", "reason"), [("auto", "vLLM is not installed"), ("transformers", "")])
def test_adapters_on_several_gpus_are_refused_without_vllm(
    monkeypatch: pytest.MonkeyPatch, engine: str, reason: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    lora = LoraShape(("q_proj",), 16)
    spec = replace(VOTER, engine=engine, device="cuda", gpus=2.0)
    with pytest.raises(EngineError, match=rf"voter-phi with LoRA.*{reason}.*over 2 GPUs.*or set alone\.gpus to 1"):
        choose_engine(spec, lora)
    for fine, shape in [(spec, None), (replace(spec, gpus=1.0), lora), (replace(spec, device="cpu"), lora)]:
        assert choose_engine(fine, shape).spec.engine == "transformers"


@pytest.mark.vllm
def test_a_vllm_class_that_cannot_be_imported_on_a_gpu_is_logged_as_a_warning(
    checkpoint: MakeCheckpoint, caplog: pytest.LogCaptureFixture
) -> None:
    llava = tiny_spec(checkpoint("llava"), engine="auto")  # vLLM has a class for it that needs more packages
    chosen, reason = choose_engine(replace(llava, gpus=0.5))
    assert (chosen.engine, type(reason)) == ("transformers", str)
    (record,) = [record for record in caplog.records if record.name == "caslie_ray.engines.selection"]
    assert record.levelname == "WARNING"
    assert "cannot be imported here" in record.getMessage()
    assert "repair the installation of vLLM" in record.getMessage()


def test_an_explicit_vllm_setting_is_kept_on_a_machine_without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "caslie_ray.engines.vllm", None)
    spec = replace(VOTER, engine="vllm")
    assert choose_engine(spec, LoraShape(("lm_head",), 16)) == (spec, "")
