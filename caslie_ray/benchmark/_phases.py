"""Chain and predictions without Ray: one model after the other in one process, each timed separately.

Shared by the published loop and the bare engines, which differ in how models are loaded and called.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeVar

from caslie_ray.captioning import KnownAnswers, View, advance
from caslie_ray.engines import Choice, Engine, EngineSpec, Failure, Generation, Request
from caslie_ray.quality import CHOICES
from caslie_ray.roles import ResolvedLineup, Role

__all__ = [
    "EARLY", "FULL", "Barrier", "Phase", "PhaseResult", "Timer", "Vote", "requests_of", "run_chain", "run_predictions",
]  # fmt: skip

FULL, EARLY = "full", "early"

Answer = TypeVar("Answer", Generation, Choice)


class Barrier(Protocol):
    """Synchronizes processes, so that all of them are busy during a timed part."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for all processes."""
        ...


@dataclass(frozen=True)
class Phase:
    """The work of one model in one process.

    Attributes:
        model: its name in the lineup.
        kind: `generate` or `choose`.
        votes: `full` for all views, `early` for undecided ones only.
        rows: requests answered.
        load_s: seconds to load it; 0 if it was already loaded.
        first_s: seconds of the untimed first call, on one request.
        seconds: wall-clock time of the timed part.
        cpu_s: CPU time of the process in the timed part, all threads.
        prompt_tokens: prompt tokens in the timed part.
        new_tokens: generated tokens in the timed part.
        parameters: number of parameters; 0 if unknown.
    """

    model: str
    kind: str
    votes: str
    rows: int
    load_s: float
    first_s: float
    seconds: float
    cpu_s: float
    prompt_tokens: int
    new_tokens: int
    parameters: int = 0


class Vote(NamedTuple):
    """One vote.

    Attributes:
        view_id: the view.
        voter: name of the voter.
        key: hash of caption, quality prompt and voter: equal keys are equal requests.
        p_yes: probability of yes; None without one.
        text: the text that the vote was read from; None for an engine, which only returns a probability.
    """

    view_id: str
    voter: str
    key: str
    p_yes: float | None
    text: str | None


@dataclass(frozen=True)
class PhaseResult:
    """The result of one process.

    Attributes:
        phases: in order.
        captions: by view id.
        votes: all votes, without early exit.
    """

    phases: list[Phase]
    captions: dict[str, str]
    votes: list[Vote]


class _Recorded:
    """Records requests, and answers them from known results."""

    def __init__(self, generations: Sequence[Generation] = (), choices: Sequence[Choice] = ()) -> None:
        self.requests: list[Request] = []
        self._generations = {one.key: one for one in generations}
        self._choices = {one.key: one for one in choices}

    def generate(self, role: Role, requests: Sequence[Request]) -> list[Generation]:
        self.requests += requests
        return [self._generations.get(one.key) or Generation(one.key, "", 0, 0, False, _NOT_ASKED) for one in requests]

    def choose(self, role: Role, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        self.requests += requests
        return [self._choices.get(one.key) or Choice(one.key, (), 0, False, _NOT_ASKED) for one in requests]


_NOT_ASKED = Failure("not asked yet", retryable=True)


class Timer:
    """Loads models and times their calls.

    Args:
        load: loads a model.
        barrier: all processes wait here before each timed part.
        patience_s: timeout of the barrier.
    """

    def __init__(self, load: Callable[[EngineSpec], Engine], barrier: Barrier, patience_s: float) -> None:
        self._load = load
        self._barrier = barrier
        self._patience_s = patience_s
        self._phases: list[Phase] = []

    def load(self, role: Role) -> tuple[Engine, float]:
        """Load a model; return it and the load time in seconds."""
        started = time.perf_counter()
        engine = self._load(role.spec)
        return engine, time.perf_counter() - started

    def generate(self, engine: Engine, role: Role, requests: Sequence[Request], load_s: float) -> list[Generation]:
        """Time `generate`; see `_timed`."""
        return self._timed(engine, role, requests, engine.generate, load_s, "generate", FULL)

    def choose(
        self, engine: Engine, role: Role, requests: Sequence[Request], load_s: float, votes: str = FULL
    ) -> list[Choice]:
        """Time `choose`; see `_timed`."""
        return self._timed(
            engine, role, requests, lambda some: engine.choose(some, CHOICES), load_s, "choose", votes
        )  # fmt: skip

    def take(self) -> list[Phase]:
        """Return the phases since the last call."""
        phases, self._phases = self._phases, []
        return phases

    def _timed(
        self,
        engine: Engine,
        role: Role,
        requests: Sequence[Request],
        ask: Callable[[Sequence[Request]], list[Answer]],
        load_s: float,
        kind: str,
        votes: str,
    ) -> list[Answer]:
        """Answer all requests in one timed call; a newly loaded model first answers one request untimed."""
        started = time.perf_counter()
        if requests and load_s:
            ask(requests[:1])
        first_s = time.perf_counter() - started
        before = engine.stats()
        self._barrier.wait(self._patience_s)
        started, cpu = time.perf_counter(), time.process_time()
        answers = ask(requests) if requests else []
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
        after = engine.stats()
        self._phases.append(
            Phase(
                role.name, kind, votes, len(requests), load_s, first_s, seconds, cpu_s,
                after.prompt_tokens - before.prompt_tokens, after.new_tokens - before.new_tokens,
                getattr(engine, "parameters", 0),
            )
        )  # fmt: skip
        return answers


def requests_of(
    views: Sequence[View],
    images: dict[str, bytes],
    lineup: ResolvedLineup,
    role: Role,
    known: KnownAnswers | None = None,
) -> list[Request]:
    """Return a model's requests for views, given known answers; runs no model."""
    record = _Recorded()
    copy = KnownAnswers(dict(known.captions), dict(known.votes)) if known is not None else KnownAnswers()
    advance(views, lineup, copy, ask=record, allowed=(role.name,), images=lambda ids: images)
    return record.requests


def run_chain(
    views: Sequence[View], images: dict[str, bytes], lineup: ResolvedLineup, timer: Timer, *, early: bool
) -> PhaseResult:
    """Caption views and vote on the captions, one model after the other, without early exit.

    Args:
        views: the views.
        images: encoded images by id.
        lineup: the models.
        timer: loads and times the models.
        early: also time each voter on the views that earlier voters left undecided, as with early exit.
    """
    lineup = replace(lineup, full=True)
    open_only = replace(lineup, full=False)
    known = KnownAnswers()
    texts: dict[tuple[str, str], str] = {}

    for role in lineup.roles:
        engine, load_s = timer.load(role)
        try:
            requests = requests_of(views, images, lineup, role, known)
            if role is lineup.captioner:
                record = _Recorded(generations=timer.generate(engine, role, requests, load_s))
            else:
                record = _Recorded(choices=timer.choose(engine, role, requests, load_s))
                if early:
                    left = requests_of(views, images, open_only, role, known)
                    timer.choose(engine, role, left, 0.0, votes=EARLY)
            texts |= {(key, role.name): text for key, text in getattr(engine, "texts", {}).items()}
        finally:
            engine.close()
        advance(views, lineup, known, ask=record, allowed=(role.name,), images=lambda ids: images)
    captions: dict[str, str] = {}
    votes: list[Vote] = []
    for row in advance(views, lineup, known):
        if row.caption is not None and row.caption.text is not None:
            captions[row.view.view_id] = row.caption.text
        for name, vote in row.votes:
            votes.append(Vote(row.view.view_id, name, vote.key, vote.p_yes, texts.get((vote.key, name))))
    return PhaseResult(timer.take(), captions, votes)


def run_predictions(requests: Sequence[Request], role: Role, timer: Timer) -> list[Phase]:
    """Time the base model on instructions."""
    engine, load_s = timer.load(role)
    try:
        timer.generate(engine, role, requests, load_s)
    finally:
        engine.close()
    return timer.take()
