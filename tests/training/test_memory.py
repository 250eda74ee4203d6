"""The estimate of a worker's memory: against live tensors of real passes, against cards, and in the plan."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from caslie_ray.engines import EngineSpec
from caslie_ray.engines.trainable import attention_for
from caslie_ray.errors import EngineError
from caslie_ray.profiles import load_profile
from caslie_ray.profiles.training import TrainingSettings
from caslie_ray.storage.run import open_run
from caslie_ray.training import plan_training
from caslie_ray.training._adapter import add_adapter
from caslie_ray.training._batches import pack_limit
from caslie_ray.training._loss import ResponseLoss
from caslie_ray.training._memory import estimate, starting_tokens
from tests.engines import tiny
from tests.training.test_job import SETTINGS, write_instructions

ROWS, LENGTH, ANSWER = 2, 512, 64
_SHAPE: dict[str, Any] = {
    "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 4096,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip


class Live(TorchDispatchMode):
    """Bytes of the tensors that operators make, while they are alive."""

    def __init__(self, known: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._seen: set[int] = set()
        self._now = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self._take(tensor.untyped_storage())
        return found

    def _take(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self._seen or place in self._known:
            return
        self._seen.add(place)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._give, place, size)

    def _give(self, place: int, size: int) -> None:
        self._seen.discard(place)
        self._now -= size


def spec_of(folder: Path, dtype: str, *, vocabulary: int, hidden: int, inner: int) -> EngineSpec:
    """A checkpoint without weights."""
    config = LlamaConfig(vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner, **_SHAPE)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return EngineSpec(str(folder), context=LENGTH, max_new_tokens=ANSWER, dtype=dtype, device="cpu")


@pytest.mark.parametrize("checkpointing", [True, False], ids=["recomputed", "kept"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(("vocabulary", "inner"), [(300, 512), (300, 1024), (30_000, 512)])
def test_activations_are_those_of_real_passes(
    tmp_path: Path, dtype: str, vocabulary: int, inner: int, checkpointing: bool
) -> None:
    spec = spec_of(tmp_path, dtype, vocabulary=vocabulary, hidden=256, inner=inner)
    chosen = TrainingSettings(micro_batch=ROWS, micro_tokens=ROWS * LENGTH, gradient_checkpointing=checkpointing)
    model: Any = LlamaForCausalLM(LlamaConfig.from_pretrained(tmp_path)).to(getattr(torch, dtype))
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    loss_of = ResponseLoss(add_adapter(model, chosen.lora, 0)).train()
    ids = torch.randint(3, 300, (ROWS, LENGTH))
    mask = torch.ones_like(ids)
    mask[0, -20:] = 0
    labels = torch.full_like(ids, -100)
    labels[:, -20 - ANSWER : -20] = 5
    trained = [parameter for parameter in loss_of.parameters() if parameter.requires_grad]
    with Live([*loss_of.parameters(), *loss_of.buffers()]) as live:
        gradients = torch.autograd.grad(loss_of({"input_ids": ids, "attention_mask": mask}, labels), trained)
    # The estimate counts the gradients of a micro-batch with the adapter.
    measured = live.peak - sum(gradient.nbytes for gradient in gradients)
    assert 0.95 < estimate(spec, chosen).activations * 2**30 / measured < 1.25


def test_a_card_too_small_for_one_sample_is_refused_and_a_small_one_lowers_the_limit(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "bfloat16", vocabulary=32_000, hidden=1024, inner=4096)
    chosen = TrainingSettings(micro_tokens=16_384, gradient_checkpointing=True)
    need = estimate(spec, chosen)
    assert need.smallest < need.activations
    fixed = 1.0 + need.weights + need.adapter
    assert starting_tokens(spec, chosen, fixed + need.activations * 1.001) == 16_384
    halved = starting_tokens(spec, chosen, fixed + need.activations / 2)
    assert 6_000 < halved <= 8_192
    lower = estimate(spec, chosen.model_copy(update={"micro_tokens": halved}))
    assert lower.activations == pytest.approx(need.activations / 2, rel=0.01)
    assert starting_tokens(spec, chosen, fixed + need.smallest * 1.001) >= 1
    with pytest.raises(EngineError, match=r"for one sample of 512 tokens, and this GPU has .*training.quantize=4bit"):
        starting_tokens(spec, chosen, fixed + need.smallest * 0.999)
    # What was compared before: weights and adapter alone.
    with pytest.raises(EngineError, match="for one sample"):
        starting_tokens(spec, chosen, need.weights + need.adapter)


@pytest.mark.usefixtures("ray_cluster")
def test_the_plan_names_the_cards_that_a_worker_fits(tmp_path: Path) -> None:
    run = write_instructions(open_run(str(tmp_path / "run")))
    on_gpus = load_profile("mini", [*SETTINGS, "training.resources.gpus=1", "training.micro_tokens=1000000"])
    lines = "\n".join(plan_training(run, on_gpus))
    assert "24 GB with micro_tokens" in lines
    assert "141 GB yes" in lines
    assert "GB" not in "\n".join(plan_training(run, load_profile("mini", SETTINGS)))


def test_long_packs_need_flash_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    half, single = EngineSpec("x", dtype="bfloat16"), EngineSpec("x", dtype="float32")
    card, here = torch.device("cuda"), torch.device("cpu")
    assert attention_for(half, card, packing=True) == "sdpa"  # none is installed
    monkeypatch.setattr("caslie_ray.engines.trainable.is_flash_attn_2_available", lambda: True)
    assert attention_for(half, card, packing=True) == "flash_attention_2"
    assert attention_for(single, card, packing=True) == "sdpa"
    assert attention_for(half, here, packing=True) == "sdpa"
    assert attention_for(half, card, packing=False) == "sdpa"
    assert pack_limit("flash_attention_2", 16_384) == 16_384
    assert pack_limit("sdpa", 16_384) == 2_048
    assert pack_limit("sdpa", 512) == 512
