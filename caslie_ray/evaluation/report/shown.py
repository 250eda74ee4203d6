"""What the report page shows of views, samples and answers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ShownAnswer", "ShownSample", "ShownTruth", "ShownView", "ShownVote"]


@dataclass(frozen=True, slots=True)
class ShownVote:
    """One voter's answer: `answer` is yes or no, or None if the voter failed with `error`."""

    voter: str
    answer: str | None
    p_yes: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class ShownTruth:
    """The known truth of a view.

    Attributes:
        usefulness: useful, useless or misleading.
        kind: kind of the image: informative, placeholder, blurred or wrong.
        product: the product, as a phrase.
        shown: what the image shows, as a phrase; None if it shows no product.
        asks: attributes that the context asks for.
        lacks: those of `asks` that the text does not answer.
        helps: whether the generated caption helps.
    """

    usefulness: str
    kind: str
    product: str
    shown: str | None
    asks: tuple[str, ...]
    lacks: tuple[str, ...]
    helps: bool


@dataclass(frozen=True, slots=True)
class ShownView:
    """One view with its caption, votes and verdict; `task` is the short code, `context` the caption prompt."""

    view_id: str
    image_id: str
    task: str
    splits: tuple[str, ...]
    context: str
    caption: str | None
    votes: tuple[ShownVote, ...]
    verdict: bool
    error: str | None
    truth: ShownTruth | None


@dataclass(frozen=True, slots=True)
class ShownAnswer:
    """The answer of one variant; `answer` is None if `text` could not be parsed."""

    variant: str
    text: str | None
    answer: str | None
    right: bool


@dataclass(frozen=True, slots=True)
class ShownSample:
    """A sample that one variant answers correctly and another does not.

    `views` are view ids in the order of the sample's images; `more_views` counts those that are not listed.
    """

    sample_id: str
    task: str
    split: str
    text: str
    output: str
    answers: tuple[ShownAnswer, ...]
    views: tuple[str, ...]
    more_views: int = 0
