"""Real engines in a process of their own answer as they do in this one."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psutil
import pytest

from caslie_ray.engines import EngineSpec, Request, load_engine
from caslie_ray.engines.load_errors import LoadError
from caslie_ray.engines.process import EngineProcess
from caslie_ray.prompts import render
from tests.engines import tiny

VOTER = EngineSpec("miniature:voter-llama-3b", context=512, max_new_tokens=16, batch_size=8, device="cpu")
CAPTIONER = EngineSpec("miniature:captioner", context=512, max_new_tokens=16, batch_size=4, device="cpu")


def questions(count: int, image: bytes | None = None) -> list[Request]:
    return [
        Request(str(number), render("Is it a {{title}}? Only output yes or no.", title="red mug " * number), image)
        for number in range(1, count + 1)
    ]


@pytest.mark.timeout(300)
def test_votes_and_texts_are_those_of_the_engine_in_this_process() -> None:
    asked = questions(20)
    here, there = load_engine(VOTER), EngineProcess(VOTER)
    try:
        assert there.choose(asked, ["yes", "no"]) == here.choose(asked, ["yes", "no"])
        prefixed = [replace(request, answer_prefix="It is", max_new_tokens=2) for request in asked[:3]]
        assert there.choose(prefixed, ["yes", "no"]) == here.choose(prefixed, ["yes", "no"])
        assert there.generate(prefixed) == here.generate(prefixed)
        expected = here.generate(asked)
        with ThreadPoolExecutor(3) as threads:  # the next calls are prepared while one is computed
            for answers in threads.map(there.generate, [asked] * 6):
                assert answers == expected
        assert "".join(there.stream(asked[3])).strip() == expected[3].text
        assert there.stats().prompt_tokens >= 7 * sum(answer.prompt_tokens for answer in expected)
    finally:
        there.close()


@pytest.mark.timeout(300)
def test_captions_are_those_of_the_engine_in_this_process() -> None:
    images = [tiny.image(colour=colour) for colour in ("red", "blue", "green")]
    asked = [replace(request, image=images[number % 3]) for number, request in enumerate(questions(6))]
    asked.append(Request("broken", asked[0].prompt, b"no image"))
    here, there = load_engine(CAPTIONER), EngineProcess(CAPTIONER)
    try:
        expected = here.generate(asked)
        assert expected[-1].failure is not None
        with ThreadPoolExecutor(2) as threads:
            for answers in threads.map(there.generate, [asked] * 3):
                assert answers == expected
    finally:
        there.close()


@pytest.mark.timeout(300)
def test_a_missing_checkpoint_is_a_final_error() -> None:
    with pytest.raises(LoadError, match="no-such-checkpoint") as caught:
        EngineProcess(replace(VOTER, checkpoint="./no-such-checkpoint"))
    assert caught.value.failure.kind == "final"


@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_vllm_is_started_again_after_a_kill_and_nothing_of_it_is_left() -> None:
    asked = questions(8)
    expected = load_engine(VOTER).generate(asked)
    process = EngineProcess(replace(VOTER, engine="vllm"))
    try:
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(process.generate, [asked] * 4)) == [expected] * 4
        assert "".join(process.stream(asked[3])).strip() == expected[3].text
        pid = process.pid
        assert pid is not None
        others = psutil.Process(pid).children(recursive=True)
        os.kill(pid, signal.SIGKILL)
        assert process.generate(asked) == expected
        assert process.counters.starts == 2
        assert not any(other.is_running() and other.status() != psutil.STATUS_ZOMBIE for other in others)
        rest = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    finally:
        process.close()
    deadline = time.monotonic() + 5
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in rest):
        assert time.monotonic() < deadline
        time.sleep(0.1)
