"""The `Engine` interface: requests, results, failures and statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from caslie_ray.prompts import Prompt

__all__ = ["Choice", "Engine", "EngineStats", "Failure", "Generation", "Request"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a model.

    Attributes:
        key: returned with the result; the engine does not interpret it.
        prompt: the user's turn, without a chat template.
        image: an encoded image (PNG, JPEG, …), placed before the text; None for text alone.
        adapter: name of the LoRA adapter to use, one of the spec's; None for the checkpoint itself.
        max_new_tokens: limit of this answer, if it is below the spec's; ignored by `choose`.
        answer_prefix: text with which the answer begins; only without an image.
    """

    key: str
    prompt: Prompt
    image: bytes | None = None
    adapter: str | None = None
    max_new_tokens: int | None = None
    answer_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request has no answer.

    Attributes:
        reason: one sentence that the user can act on.
        retryable: whether the same request may succeed later (out of memory).
    """

    reason: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Generation:
    """The result of a `generate` request.

    Attributes:
        key: the request's key.
        text: generated text, stripped, without special tokens; empty on failure.
        prompt_tokens: tokens of the prompt, including chat template and image.
        new_tokens: generated tokens, including the end token.
        cut: whether user fields lost words so that the prompt fits.
        failure: why there is no answer, or None.
        captions_cut: whether captions in the prompt lost words so that it fits.
        truncated: whether the answer reached its limit of tokens without an end token.
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
    """The result of a `choose` request.

    Attributes:
        key: the request's key.
        probabilities: one per choice, in order, summing to 1; empty on failure.
        prompt_tokens: tokens of the prompt, including chat template and image.
        cut: whether user fields lost words so that the prompt fits.
        failure: why there is no answer, or None.
    """

    key: str
    probabilities: tuple[float, ...]
    prompt_tokens: int
    cut: bool
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Statistics of an engine since it was loaded.

    Attributes:
        calls: requests answered, including failures.
        failures: requests that failed.
        prompt_tokens: prompt tokens, without padding.
        new_tokens: generated tokens.
        seconds: time spent in `generate` and `choose`.
        load_seconds: time to load the checkpoint.
        details: engine-specific counters by name. They are summed over engines, except for maxima, which are named
            ``…_peak``.
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

    Both methods return one result per request, in order. A request that cannot be answered (an unreadable image, a
    prompt that does not fit, out of memory) gets a `Failure` and does not affect the others. `registry.overlap` is the
    number of threads that may call an engine concurrently.
    """

    def generate(self, requests: Sequence[Request]) -> list[Generation]:
        """Generate an answer to each request.

        Raises:
            EngineError: the engine is closed, or its device is lost.
        """
        ...

    def choose(self, requests: Sequence[Request], choices: Sequence[str]) -> list[Choice]:
        """Return each choice's probability at the first token of the answer, from one forward pass.

        A choice's probability is the sum over the distinct first tokens of its spellings (lower, upper and title case,
        with and without a leading space), without tokens that two choices share, normalized over the choices. (CASLIE
        4.2; its published loop generates 16 tokens and reads the first word.)

        Raises:
            ValueError: fewer than two choices, or two equal ones.
            EngineError: a choice has no first token of its own, the engine is closed, or its device is lost.
        """
        ...

    def stats(self) -> EngineStats:
        """Return statistics since the checkpoint was loaded."""
        ...

    def close(self) -> None:
        """Free the model and its memory; the engine is unusable afterwards. Idempotent."""
        ...
