"""The published loop, on the miniature checkpoints: what it writes, and that its votes are those of `choose`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from caslie_ray.benchmark._local_runs import Devices
from caslie_ray.benchmark._phases import EARLY, FULL, PhaseResult, Timer, Vote, run_chain
from caslie_ray.benchmark._published_loop import VOTE_TOKENS, PublishedLoop, read_vote
from caslie_ray.benchmark._views import images_of, views_of
from caslie_ray.benchmark._vote_agreement import compare_votes
from caslie_ray.captioning import View
from caslie_ray.engines import EngineSpec, Request, load_engine, resolve
from caslie_ray.profiles import Profile
from caslie_ray.prompts import Prompt
from caslie_ray.quality import CHOICES
from caslie_ray.roles import resolve as resolve_lineup
from caslie_ray.storage.run import open_run
from tests.worlds import VOTERS, InProcess, caption_here, fresh_run, profile, rows, voter

VIEWS, NAMES = 24, VOTERS[:3]


class Alone:
    """A barrier of one process."""

    def wait(self, timeout: float | None = None) -> int:
        return 0


@pytest.fixture(scope="module")
def chosen() -> Profile:
    return profile(*(voter(name) for name in NAMES), settings=["votes.audit=0.0"])


@pytest.fixture(scope="module")
def views(world: Path) -> list[View]:
    return views_of(open_run(str(world)))[:VIEWS]


@pytest.fixture(scope="module")
def bare(world: Path, views: list[View], chosen: Profile) -> PhaseResult:
    timer = Timer(load_engine, Alone(), 1.0)
    return run_chain(views, images_of(open_run(str(world))), resolve_lineup(chosen), timer, early=True)


@pytest.fixture(scope="module")
def published(world: Path, views: list[View], chosen: Profile) -> PhaseResult:
    timer = Timer(PublishedLoop, Alone(), 1.0)
    return run_chain(views, images_of(open_run(str(world))), resolve_lineup(chosen), timer, early=False)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("yes", "yes"), ("Yes, it does.", "yes"), (" **No**", "no"), ("yesyesyes", "yes"), ("nono", "no"),
        ("The answer is yes", None), ("", None), ("…", None),
    ],
)  # fmt: skip
def test_how_a_vote_is_read_from_a_text(text: str, answer: str | None) -> None:
    assert read_vote(text) == answer


def test_a_vote_is_what_transformers_generates_in_sixteen_tokens() -> None:
    found = resolve("miniature:voter-phi")
    model: Any = AutoModelForCausalLM.from_pretrained(found.location)
    tokenizer: Any = AutoTokenizer.from_pretrained(found.location)
    question = "Does the caption help? A red hammer. yes or no"
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        written = model.generate(**ids, max_new_tokens=16, do_sample=False)
    expected = tokenizer.decode(written[0, ids["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    loop = PublishedLoop(EngineSpec("miniature:voter-phi", context=1024, device="cpu"))
    (choice,) = loop.choose([Request("a", Prompt(question))], CHOICES)
    assert loop.texts == {"a": expected}
    assert choice.probabilities == (float(read_vote(expected) == "yes"), float(read_vote(expected) == "no"))
    assert VOTE_TOKENS == 16
    assert 0 < loop.stats().new_tokens <= 16
    assert loop.parameters == sum(one.numel() for one in model.parameters())


def test_a_prompt_that_does_not_fit_is_a_failure_and_the_next_one_is_answered() -> None:
    loop = PublishedLoop(EngineSpec("miniature:voter-phi", context=64, max_new_tokens=8, device="cpu"))
    long, short = Request("long", Prompt("word " * 100)), Request("short", Prompt("Is it red?"))
    assert [answer.failure is None for answer in loop.choose([long, short], CHOICES)] == [False, True]
    assert [answer.failure is None for answer in loop.generate([long, short])] == [False, True]


def test_captions_of_the_loop_are_the_engines(bare: PhaseResult, published: PhaseResult) -> None:
    assert len(bare.captions) == VIEWS
    assert published.captions == bare.captions


def test_votes_of_the_loop_are_those_of_choose(bare: PhaseResult, published: PhaseResult) -> None:
    found = compare_votes(published.votes, bare.votes)
    assert found.compared >= 0.9 * VIEWS * len(NAMES)
    assert found.unmatched == 0
    assert found.share is not None
    assert found.share >= 0.99, found.differences
    for name in NAMES:
        assert {read_vote(vote.text or "") for vote in published.votes if vote.voter == name} >= {"yes", "no"}, name


def test_a_difference_is_listed_with_its_probability() -> None:
    texts = [("a", "yes"), ("b", "No."), ("c", "perhaps"), ("d", "yes"), ("e", "yes")]
    published = [Vote(name, "phi", name, None, text) for name, text in texts]
    chosen = [Vote(name, "phi", name, p, None) for name, p in (("a", 0.9), ("b", 0.51), ("c", 0.9), ("d", 0.5))]
    found = compare_votes(published, [*chosen, Vote("e", "mistral", "e", 0.9, None)])
    assert (found.compared, found.agreed, found.unread, found.unmatched) == (3, 1, 1, 1)
    assert found.differences == [
        {"view_id": "b", "voter": "phi", "p_yes": 0.51, "text": "No."},
        {"view_id": "d", "voter": "phi", "p_yes": 0.5, "text": "yes"},  # a tie is no
    ]
    assert compare_votes([], chosen).share is None


def test_bare_engines_get_the_same_requests_as_the_job(
    world: Path, views: list[View], chosen: Profile, bare: PhaseResult, tmp_path: Path
) -> None:
    """Full votes: each voter about each view. Early exit: as many calls of each voter as the job makes."""
    run = fresh_run(world, tmp_path / "run")
    wanted = {view.view_id for view in views}
    for path in run.files("views"):
        table = run.read_file(path)
        run.write("views", run.partition(path), table.filter([one in wanted for one in table["view_id"].to_pylist()]))
    calls = caption_here(run, chosen, InProcess())
    by_votes = {
        kind: {phase.model: phase.rows for phase in bare.phases if phase.votes == kind} for kind in (FULL, EARLY)
    }
    assert by_votes[FULL] == dict.fromkeys(("captioner", *NAMES), VIEWS)
    asked_early = {name: count for name, count in by_votes[EARLY].items() if count}
    assert asked_early == {name: count for name, count in calls.items() if name != "captioner"}
    assert sum(by_votes[EARLY].values()) < VIEWS * len(NAMES)
    held = {row["view_id"]: row["caption"] for row in rows(run)}
    assert held == bare.captions


def test_each_phase_reports_its_time_and_tokens(bare: PhaseResult) -> None:
    for phase in bare.phases:
        assert phase.seconds > 0, phase
        if not phase.rows:  # the voters before it have decided all
            assert (phase.votes, phase.prompt_tokens, phase.new_tokens) == (EARLY, 0, 0)
            continue
        assert phase.cpu_s > 0, phase
        assert phase.prompt_tokens > phase.rows, phase
        assert (phase.load_s > 0) == (phase.votes == FULL), phase
        assert (phase.new_tokens > 0) == (phase.kind == "generate"), phase


def test_a_process_per_core_or_one_where_vllm_takes_all() -> None:
    from caslie_ray.benchmark._local_runs import devices_for

    assert devices_for(profile(), 8, 0, published=False) == Devices(8, 1)
    vllm = profile(voter("phi", engine="vllm"))
    assert devices_for(vllm, 8, 0, published=False) == Devices(1, 8)
    assert devices_for(vllm, 8, 0, published=True) == Devices(8, 1)
    on_gpu = profile(settings=["lineup.captioner.resources.gpus=1", "lineup.base.alone.gpus=2"])
    assert devices_for(on_gpu, 16, 8, published=False) == Devices(4, 4, 2)
    assert devices_for(on_gpu, 16, 8, published=True) == Devices(8, 2, 1)
