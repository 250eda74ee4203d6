"""What every engine takes and gives back, whatever runs the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from caslie_ray.prompts import Prompt

__all__ = ["Choice", "Engine", "EngineStats", "Failure", "Generation", "Request"]


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model.

    Attributes:
        key: comes back with the answer; the engine does not read it.
        prompt: the user's turn, without any chat template.
        image: an encoded image (PNG, JPEG, …), shown before the text; None for text alone.
        adapter: name of the LoRA adapter that answers, one of the spec's; None for the checkpoint itself.
    """

    key: str
    prompt: Prompt
    image: bytes | None = None
    adapter: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request has no answer.

    Attributes:
        reason: one sentence a person can act on.
        retryable: True where the same request may work later (out of memory); False where it never will.
    """

    reason: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Generation:
    """The answer to a `generate` request.

    Attributes:
        key: that of the request.
        text: what the model wrote, without special tokens and outer white space; empty on failure.
        prompt_tokens: tokens of the prompt as the model read it: template and image included.
        new_tokens: tokens that the model wrote, the one that ends the answer included.
        cut: True where user fields lost words so that the prompt fits.
        failure: None, or why there is no answer.
        captions_cut: True where captions in the prompt lost words so that it fits.
        truncated: True where the answer reached `max_new_tokens` without an end token.
    """

    key: str
    text: str
    prompt_tokens: int
    new_tokens: int
    cut: bool
    failure: Failure | None = None
    captions_cut: bool = False
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """The answer to a `choose` request.

    Attributes:
        key: that of the request.
        probabilities: one a choice, in the order of the choices, with sum 1; empty on failure.
        prompt_tokens: tokens of the prompt as the model read it: template and image included.
        cut: True where user fields lost words so that the prompt fits.
        failure: None, or why there is no answer.
    """

    key: str
    probabilities: tuple[float, ...]
    prompt_tokens: int
    cut: bool
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine has done since it was loaded.

    Attributes:
        calls: requests answered, failures included.
        failures: requests that failed.
        prompt_tokens: tokens read, padding left out.
        new_tokens: tokens written.
        seconds: time spent in `generate` and `choose`.
        load_seconds: time it took to load the checkpoint.
        details: what else this engine counts, by name. Counts of two engines may be added; what is named
            ``…_peak`` is a greatest value.
    """

    calls: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    new_tokens: int = 0
    seconds: float = 0.0
    load_seconds: float = 0.0
    details: Mapping[str, float] = field(default_factory=dict)


class Engine(Protocol):
    """A loaded checkpoint that answers requests.

    Both methods give one answer a request, in the order of the requests. A request that cannot be
    answered (an image that cannot be read, a prompt that does not fit, memory that ran out) has a
    `Failure` in its place and costs no other request its answer. How many threads may ask at once is
    `registry.overlap`.
    """

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Write an answer to each request.

        Raises:
            EngineError: the engine is closed, or its device is lost.
        """
        ...

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        """Give each choice's probability at the first token of the answer, in one forward pass.

        A choice's probability is the sum over the distinct first tokens of its spellings (lower, upper and
        title case, with and without a leading space), tokens that two choices share left out, normalised
        over the choices (CASLIE 4.2; its published loop generates 16 tokens and reads the first word).

        Raises:
            ValueError: fewer than two choices, or two that are alike.
            EngineError: a choice has no first token of its own, the engine is closed, or its device is lost.
        """
        ...

    def stats(self) -> EngineStats:
        """What was done since the checkpoint was loaded."""
        ...

    def close(self) -> None:
        """Free the model and its memory; the engine answers nothing after this. May be called twice."""
        ...
