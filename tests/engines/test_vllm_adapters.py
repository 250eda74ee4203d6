"""LoRA adapters on vLLM, family by family: the answers of transformers, or a refusal that says why.

Llama with tied embeddings, of which `test_vllm.py` has an engine, is tested there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from caslie_ray.engines import Engine, LoraShape, load_engine, resolve
from caslie_ray.engines.selection import choose_engine
from caslie_ray.errors import EngineError
from tests.engines.adapters import BODY, HEAD, add_mistral_format, make_adapter, untie
from tests.engines.conftest import MakeCheckpoint, tiny_spec
from tests.engines.test_vllm import VOTER, YES_NO, questions

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

FUSED_BODY = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
BODIES = {"llama": BODY, "mistral": BODY, "phi": FUSED_BODY, "qwen": BODY}
RANK = 16
CASES = ("body", "head", "both")
REFUSED = {"qwen": "vLLM 0.29.0 cannot adapt lm_head of Qwen2ForCausalLM"}
"""Families whose head vLLM cannot adapt."""


def targets(family: str, case: str) -> tuple[str, ...]:
    return {"body": BODIES[family], "head": HEAD, "both": (*BODIES[family], *HEAD)}[case]


class Pair(NamedTuple):
    """One checkpoint with the adapters that vLLM can apply, on both engines."""

    adapters: tuple[str, ...]
    vllm: Engine
    transformers: Engine


@pytest.fixture(scope="module", params=["mistral", "phi", "qwen"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """One engine of vLLM per family, which holds all of its adapters at once."""
    family, folder = request.param, tmp_path_factory.mktemp(request.param)
    base = Path(resolve(f"miniature:voter-{family}").location)
    if family != "qwen":  # Qwen2's small models tie their embeddings; Mistral-7B and Phi-3 do not
        base = untie(base, folder / "base")
    if family == "mistral":
        add_mistral_format(base)
    names = ("body",) if family in REFUSED else CASES
    adapters = {name: make_adapter(base, folder / name, targets(family, name), seed) for seed, name in enumerate(names)}
    spec = replace(VOTER, checkpoint=str(base), adapters=adapters, generation={"min_new_tokens": 40})
    vllm = load_engine(replace(spec, engine="vllm"))
    yield Pair(names, vllm, load_engine(spec))
    vllm.close()


def test_answers_are_those_of_transformers_with_every_adapter_and_without(pair: Pair) -> None:
    asked = questions(None, *pair.adapters)
    ours, theirs = (engine.choose(asked, YES_NO) for engine in (pair.vllm, pair.transformers))
    assert [answer.failure for answer in ours] == [None] * len(asked)
    for one, other in zip(ours, theirs, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4), one.key
    for number in range(7):  # no two adapters answer alike, nor does one answer as the base
        shares = {round(one.probabilities[0], 5) for one in ours if one.key.startswith(f"{number}-")}
        assert len(shares) == 1 + len(pair.adapters)
    assert pair.vllm.generate(asked) == pair.transformers.generate(asked)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", BODIES)
def test_the_engine_is_chosen_by_what_is_to_be_adapted(family: str, case: str) -> None:
    spec = replace(VOTER, checkpoint=f"miniature:voter-{'llama-3b' if family == 'llama' else family}", engine="auto")
    modules = targets(family, case)
    chosen, reason = choose_engine(spec, LoraShape(modules, RANK))
    if family in REFUSED and case != "body":
        assert (chosen.engine, reason) == ("transformers", REFUSED[family])
        return
    loaded_as = " (loaded as LlamaForCausalLM)" if family == "mistral" and case != "body" else ""
    assert (chosen.engine, reason) == ("vllm", f"vLLM adapts {', '.join(modules)}{loaded_as}")


@pytest.mark.parametrize("case", ["head", "both"])
def test_what_vllm_cannot_adapt_answers_on_transformers(case: str, tmp_path: Path) -> None:
    spec = replace(VOTER, checkpoint="miniature:voter-qwen")
    folder = make_adapter(resolve(spec.checkpoint).location, tmp_path / case, targets("qwen", case))
    adapted = replace(spec, adapters={"mine": folder})
    with pytest.raises(EngineError) as raised:
        load_engine(replace(adapted, engine="vllm"))
    assert str(raised.value) == f"adapter mine ({folder}): {REFUSED['qwen']}; set engine: auto or engine: transformers"
    lora = LoraShape(targets("qwen", case), RANK)
    with pytest.raises(EngineError, match=r"voter-qwen: vLLM .* cannot adapt lm_head of .*; set engine: auto or"):
        choose_engine(replace(spec, engine="vllm"), lora)
    engine = load_engine(replace(adapted, engine=choose_engine(replace(spec, engine="auto"), lora).spec.engine))
    without, with_ = (engine.choose(questions(name), YES_NO)[0] for name in (None, "mine"))
    assert without.probabilities != pytest.approx(with_.probabilities, abs=1e-3)


@pytest.mark.parametrize(
    ("checkpoint_name", "lora", "said"),
    [
        ("mistral", LoraShape(HEAD, RANK), "cannot adapt lm_head of MistralForCausalLM with a sliding window"),
        ("mistral", LoraShape(BODY, RANK), None),
        ("llama", LoraShape(BODY, 600), "has LoRA kernels up to rank 512, and the adapter's is 600"),
        ("llama", LoraShape(FUSED_BODY, RANK), "LlamaForCausalLM has no module qkv_proj, gate_up_proj"),
        ("phi3", LoraShape(BODY, RANK), "Phi3ForCausalLM has no module q_proj, k_proj, v_proj, gate_proj, up_proj"),
    ],
)
def test_the_reason_names_what_is_in_the_way(
    checkpoint: MakeCheckpoint, checkpoint_name: str, lora: LoraShape, said: str | None
) -> None:
    chosen, reason = choose_engine(tiny_spec(checkpoint(checkpoint_name), engine="auto", context=128), lora)
    assert chosen.engine == ("vllm" if said is None else "transformers")
    assert (said or "vLLM adapts q_proj") in reason
