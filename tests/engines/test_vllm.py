"""vLLM's CPU engine gives the answers of transformers, and fails as an engine must."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from caslie_ray.captioning._rows import read_views
from caslie_ray.engines import CheckpointError, Engine, EngineSpec, Request, load_engine, resolve
from caslie_ray.engines._preprocessor import load_preprocessor
from caslie_ray.engines._source import find_source
from caslie_ray.engines.vllm import VllmEngine, refusal
from caslie_ray.engines.vllm._settings import engine_settings
from caslie_ray.errors import EngineError
from caslie_ray.prompts import Prompt, render
from caslie_ray.storage.run import open_run
from tests.engines import tiny
from tests.engines.adapters import BODY, HEAD, make_adapter, silence
from tests.engines.conftest import MakeCheckpoint, tiny_spec

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

YES_NO = ["yes", "no"]
VOTER = EngineSpec("miniature:voter-llama-3b", context=512, max_new_tokens=48, batch_size=8, device="cpu")
CAPTIONER = EngineSpec("miniature:captioner", context=512, max_new_tokens=24, batch_size=8, device="cpu")


def on(engine: str, spec: EngineSpec) -> Engine:
    return load_engine(replace(spec, engine=engine))


@pytest.fixture(scope="module")
def voter_spec(tmp_path_factory: pytest.TempPathFactory) -> EngineSpec:
    """The voter with three adapters, and settings of generation that are not greedy's own."""
    folder = tmp_path_factory.mktemp("adapters")
    base = resolve(VOTER.checkpoint).location
    adapters = {
        "all": make_adapter(base, folder / "all", (*BODY, *HEAD)),
        "head": make_adapter(base, folder / "head", HEAD, seed=1),
        "small": make_adapter(base, folder / "small", BODY, seed=2, rank=4),
    }
    return replace(VOTER, adapters=adapters, generation={"repetition_penalty": 1.3, "min_new_tokens": 40})


@pytest.fixture(scope="module")
def voter(voter_spec: EngineSpec) -> Iterator[Engine]:
    engine = on("vllm", voter_spec)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def reference(voter_spec: EngineSpec) -> Engine:
    return on("transformers", voter_spec)


def questions(*adapters: str | None) -> list[Request]:
    """Prompts of very different lengths, some too long for the context, each asked of every adapter."""
    return [
        Request(f"{number}-{name}", render("Is it a {{title}}? Only output yes or no.", title=title), None, name)
        for number, title in enumerate("red mug " * size for size in (1, 2, 5, 30, 100, 400, 2000))
        for name in adapters
    ]


def test_votes_and_texts_are_those_of_transformers_with_every_adapter(voter: Engine, reference: Engine) -> None:
    asked = questions(None, "all", "head", "small")
    ours, theirs = voter.choose(asked, YES_NO), reference.choose(asked, YES_NO)
    assert [answer.failure for answer in ours] == [None] * len(asked)
    for one, other in zip(ours, theirs, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
        assert (one.key, one.prompt_tokens, one.cut) == (other.key, other.prompt_tokens, other.cut)
    assert {answer.cut for answer in ours} == {True, False}
    texts = voter.generate(asked)
    assert texts == reference.generate(asked)
    assert any(text.truncated for text in texts)
    short = [replace(request, max_new_tokens=3) for request in asked[:4]]
    assert voter.generate([*short, asked[0]]) == reference.generate([*short, asked[0]])
    prefixed = [replace(request, answer_prefix="It is a") for request in asked]
    ours, theirs = (engine.choose(prefixed, ["mug", "red"]) for engine in (voter, reference))
    for one, other in zip(ours, theirs, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
        assert (one.prompt_tokens, one.cut) == (other.prompt_tokens, other.cut)


def test_captions_in_a_prompt_are_cut_as_on_transformers(voter: Engine, reference: Engine) -> None:
    caption = "a red mug with a striped pattern " * 100
    text = f"Is it red? image: {caption}Only output yes or no."
    asked = [Request("0", Prompt(text, captions=((18, 18 + len(caption)),)))]
    (ours,), (theirs,) = voter.generate(asked), reference.generate(asked)
    assert (ours.captions_cut, ours.cut, ours.failure) == (True, False, None)
    assert ours == theirs


def test_every_adapter_changes_the_answers_and_only_its_own(voter: Engine) -> None:
    asked = questions(None, "all", "head", "small")
    answers = {answer.key: answer.probabilities[0] for answer in voter.choose(asked, YES_NO)}
    alone = {answer.key: answer.probabilities[0] for answer in voter.choose(questions(None), YES_NO)}
    for number in range(7):
        told = [answers[f"{number}-{name}"] for name in (None, "all", "head", "small")]
        assert len({round(share, 5) for share in told}) == 4
        assert told[0] == pytest.approx(alone[f"{number}-None"], abs=1e-5)


def test_threads_may_ask_at_once(voter: Engine) -> None:
    asked = [questions(None, "all"), questions("head"), questions("small", None), questions("all")]
    before = voter.stats()
    with ThreadPoolExecutor(max_workers=4) as threads:
        together = list(threads.map(lambda part: voter.choose(part, YES_NO), asked))
    for part, answers in zip(asked, together, strict=True):
        again = voter.choose(part, YES_NO)
        assert [answer.key for answer in answers] == [request.key for request in part]
        for one, other in zip(answers, again, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert voter.stats().calls == before.calls + 2 * sum(map(len, asked))


def test_one_slow_answer_does_not_delay_others(voter: Engine) -> None:
    done: list[str] = []

    def write() -> None:
        voter.generate(questions(None)[:4])  # 40 steps at least
        done.append("slow")

    thread = threading.Thread(target=write)
    thread.start()
    voter.choose(questions(None)[:1], YES_NO)  # one step
    done.append("quick")
    thread.join()
    assert done == ["quick", "slow"]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request("empty", Prompt(" ")), "the prompt is empty"),
        (Request("long", Prompt("mug " * 2000)), "the context of 512 has room for"),
        (Request("image", Prompt("what?"), tiny.image()), "takes no images"),
        (Request("adapter", Prompt("what?"), None, "other"), "no adapter 'other'; there are: all, head, small"),
    ],
)
def test_what_cannot_be_asked_is_a_failure_and_affects_no_other_row(
    voter: Engine, request_: Request, said: str
) -> None:
    bad, good = voter.choose([request_, questions(None)[0]], YES_NO)
    assert bad.failure is not None
    assert said in bad.failure.reason
    assert not bad.failure.retryable
    assert good.failure is None


def test_the_engine_reports_the_counters_of_vllm(voter: Engine) -> None:
    asked = [Request(str(n), render("{{text}} Is it a mug?", text="red mug " * 100)) for n in range(20)]
    before = voter.stats()
    voter.choose(asked, YES_NO)
    after = voter.stats()
    assert after.details["prefix_cache_hits"] > before.details["prefix_cache_hits"]
    assert after.details["prefix_cache_tokens"] - before.details["prefix_cache_tokens"] == (
        after.prompt_tokens - before.prompt_tokens
    )
    assert 1 <= after.details["running_peak"] <= VOTER.batch_size
    assert after.load_seconds > 0


def test_captions_of_odd_images_are_those_of_transformers() -> None:
    prompt = render("Caption it. {{title}}", title="red mug " * 300)
    sizes = [(100, 100), (1, 1), (2, 500), (500, 2), (1, 3000), (500, 333)]
    asked = [Request(str(size), prompt, tiny.image(*size)) for size in sizes]
    asked += [Request("broken", prompt, b"no image"), Request("half", prompt, tiny.image(200, 200)[:100])]
    asked += [Request("text", Prompt("Hello"))]
    answers = []
    for name in ("vllm", "transformers"):
        engine = on(name, CAPTIONER)
        answers.append(engine.generate(asked))
        engine.close()
    assert answers[0] == answers[1]
    assert [answer.key for answer in answers[0] if answer.failure] == ["broken", "half"]
    assert any(not answer.truncated for answer in answers[0] if not answer.failure)


@pytest.mark.parametrize("count", [12, 50])
def test_votes_of_a_real_model_are_those_of_transformers(quality_prompts: list[Request], count: int) -> None:
    spec = EngineSpec("smollm2", context=512, max_new_tokens=8, batch_size=8, batch_tokens=4096, device="cpu")
    shares = []
    for name in ("vllm", "transformers"):
        engine = on(name, spec)
        shares.append([answer.probabilities[0] for answer in engine.choose(quality_prompts[:count], YES_NO)])
        engine.close()
    assert len(shares[0]) == count
    assert max(abs(one - other) for one, other in zip(*shares, strict=True)) < 1e-3


@pytest.fixture
def quality_prompts(world: Path) -> list[Request]:
    """Quality prompts of the drawn data set, each with a caption, as a voter reads them."""
    views = read_views(open_run(str(world)).read("views"))
    asked = [Request(view.view_id, view.quality_prompt.fill("caption", "The image shows a red mug.")) for view in views]
    return sorted(asked, key=lambda request: request.key)


def processes() -> set[int]:
    """The processes of vLLM's engines on this machine."""
    alive = [one for one in psutil.process_iter(["name", "status"]) if one.info["status"] != psutil.STATUS_ZOMBIE]
    return {one.pid for one in alive if "VLLM" in (one.info["name"] or "")}


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_an_engine_whose_process_is_killed_reports_it_and_leaves_no_process() -> None:
    before = processes()
    engine = on("vllm", VOTER)
    (core,) = processes() - before
    assert engine.choose(questions(None), YES_NO)[0].failure is None
    threading.Timer(0.2, os.kill, (core, signal.SIGKILL)).start()
    asked = questions(None)[:2] * 2000
    with pytest.raises(EngineError, match="the vLLM engine of miniature:voter-llama-3b died"):
        engine.choose(asked, YES_NO)
    with pytest.raises(EngineError, match="died"):
        engine.generate(questions(None))
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.generate(questions(None))
    assert wait_for(lambda: processes() <= before)


OWNER = """
import sys, time
from caslie_ray.engines.vllm._process_guard import scratch
from tests.engines.test_vllm import VOTER, on
if __name__ == "__main__":
    engine = on("vllm", VOTER)
    print(scratch(), flush=True)
    time.sleep(600)
"""


def test_an_engine_ends_with_its_owner_however_that_ends(tmp_path: Path) -> None:
    before = processes()
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    root = Path(__file__).parents[2]
    owner = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert owner.stdout is not None
    folder = Path(owner.stdout.readline().strip())
    assert (folder / "vllm.log").is_file()
    assert len(processes() - before) == 1
    owner.kill()
    owner.wait()
    assert wait_for(lambda: processes() <= before and not folder.exists())


def copy_of(checkpoint: str, folder: Path) -> Path:
    return Path(shutil.copytree(resolve(checkpoint).location, folder))


def test_weights_that_are_cut_off_are_reported_with_their_cause(tmp_path: Path) -> None:
    before = processes()
    broken = copy_of(VOTER.checkpoint, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:10_000])
    with pytest.raises(EngineError, match=r"checkpoint .*broken cannot be loaded on vLLM: .*[Ss]afetensor"):
        on("vllm", replace(VOTER, checkpoint=str(broken)))
    assert wait_for(lambda: processes() <= before)


def test_settings_that_vllm_refuses_are_reported_before_it_starts() -> None:
    before = processes()
    with pytest.raises(EngineError, match=r"voter-llama-3b cannot be loaded on vLLM: .*min_tokens"):
        on("vllm", replace(VOTER, generation={"min_new_tokens": 99}))
    assert processes() <= before


def test_an_adapter_that_vllm_does_not_apply_is_refused(tmp_path: Path) -> None:
    folder = make_adapter(resolve(VOTER.checkpoint).location, tmp_path / "idle", BODY)
    silence(folder, "lora_A")
    with pytest.raises(EngineError, match=r"adapter idle \(.*\) changes nothing on vLLM"):
        on("vllm", replace(VOTER, adapters={"idle": folder}))


def test_what_vllm_cannot_run_is_reported_without_loading_it(checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    assert refusal(VOTER) is None
    assert refusal(CAPTIONER) is None
    assert refusal(EngineSpec("smollm2", device="cpu")) is None
    assert "has no MllamaForConditionalGeneration" in (refusal(tiny_spec(checkpoint("mllama"))) or "")
    assert "after an image" in (refusal(tiny_spec(checkpoint("blip2"))) or "")
    assert "cannot be imported here" in (refusal(tiny_spec(checkpoint("llava"))) or "")
    assert "with a context of 512, above 128" in (refusal(tiny_spec(checkpoint("phi3"))) or "")
    assert refusal(tiny_spec(checkpoint("phi3"), context=128)) is None
    assert "built for cpu, and the model is to run on cuda" in (refusal(replace(VOTER, device="cuda")) or "")
    with pytest.raises(CheckpointError, match="no folder"):
        refusal(replace(VOTER, checkpoint="nowhere"))
    whole = copy_of(CAPTIONER.checkpoint, tmp_path / "whole")
    for path in whole.glob("*processor*.json"):
        told = json.loads(path.read_text())
        for settings in (told, told.get("image_processor", {})):
            if "do_image_splitting" in settings:
                settings["do_image_splitting"] = False
        path.write_text(json.dumps(told))
    assert "one tile of an image" in (refusal(replace(CAPTIONER, checkpoint=str(whole))) or "")
    with pytest.raises(EngineError, match="cannot run on vLLM: its processor makes one tile"):
        VllmEngine(replace(CAPTIONER, checkpoint=str(whole)))


@pytest.mark.parametrize(
    ("gpus", "parallel", "memory"), [(0.0, 1, 0.9), (0.25, 1, 0.225), (1.0, 1, 0.9), (2.0, 2, 0.9), (4.0, 4, 0.9)]
)
def test_gpus_of_the_profile_are_a_share_of_one_or_split_the_model(gpus: float, parallel: int, memory: float) -> None:
    spec = replace(VOTER, device="cuda", gpus=gpus)
    source = find_source(spec)
    settings = engine_settings(spec, source, load_preprocessor(spec, source), [16, 40])
    assert settings.tensor_parallel_size == parallel
    assert settings.gpu_memory_utilization == pytest.approx(memory)
    assert (settings.kv_cache_memory_bytes is None) == (gpus != 0.25)  # neighbours on a card may not be looked at
    assert (settings.enable_prefix_caching, settings.enforce_eager, settings.trust_remote_code) == (True, False, False)
    assert (settings.enable_lora, settings.max_lora_rank, settings.max_loras) == (True, 64, 2)


@pytest.mark.parametrize(("device", "block"), [("cuda", 16), ("cpu", 128)])
def test_the_kv_cache_is_sized_in_the_blocks_of_its_device(device: str, block: int) -> None:
    spec = replace(VOTER, device=device, gpus=0.25, batch_size=32, context=1024, batch_tokens=16384)
    source = find_source(spec)
    preprocessor = load_preprocessor(spec, source)
    settings = engine_settings(spec, source, preprocessor, [])
    text = preprocessor.config
    token = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * 4  # float32
    assert settings.kv_cache_memory_bytes == (16384 // block + 32 + 64) * block * token
    own = engine_settings(replace(spec, device="cpu"), source, preprocessor, []).create_engine_config().cache_config
    assert block == (own.block_size if device == "cpu" else type(own).DEFAULT_BLOCK_SIZE)
