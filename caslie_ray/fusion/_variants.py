"""The variants of an instruction: which captions each one shows.

`caslie` shows the captions with a verdict of yes, `uia` (use it always) every caption, `text` none. Experiments add
variants of their own, in a table of their own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from caslie_ray.errors import RunError
from caslie_ray.profiles import Profile
from caslie_ray.quality import count

__all__ = [
    "CONTEXT_FREE", "EXPERIMENTS", "SHUFFLED", "VARIANTS", "VERDICT_ONLY", "Captioned", "Choose", "Source",
    "experiments_of", "sources_of",
]  # fmt: skip

VARIANTS = ("caslie", "uia", "text")

EXPERIMENTS = "experiments"
"""The table of the experiments' variants; its schema is that of `instructions`."""

SHUFFLED, VERDICT_ONLY, CONTEXT_FREE = "shuffled", "verdict-only", "context-free"

_MARK = "helpful"
# Replaces each caption with a verdict of yes in the variant `verdict-only`.


class Captioned(NamedTuple):
    """What is known of a view.

    Attributes:
        caption: its caption.
        verdict: whether the voters want it used.
        answers: the voters' answers by name; empty unless `experiments.voter_sets` needs them.
        drawn: whether the variant `shuffled` shows it.
    """

    caption: str | None
    verdict: bool
    answers: Mapping[str, str | None] = {}
    drawn: bool = False


Choose = Callable[[Captioned], str | None]
"""The text that a prompt shows for a view; None for none."""


class Source(NamedTuple):
    """Variants that are made of the same captions.

    Attributes:
        table: where their instructions go.
        context_free: whether they show the captions written without context.
        choose: what each variant shows, by its name.
    """

    table: str
    context_free: bool
    choose: Mapping[str, Choose]


def _won(view: Captioned) -> str | None:
    return view.caption if view.verdict else None


CHOOSE: Mapping[str, Choose] = {"caslie": _won, "uia": lambda view: view.caption, "text": lambda view: None}
"""The variants of the table `instructions`."""


def experiments_of(profile: Profile) -> list[str]:
    """Return the variants of a profile's experiments."""
    experiments = profile.experiments
    return [
        *([SHUFFLED] if experiments.shuffled else []),
        *([VERDICT_ONLY] if experiments.verdict_only else []),
        *([CONTEXT_FREE] if experiments.context_free else []),
        *_set_names(experiments.voter_sets),
    ]


def sources_of(profile: Profile) -> list[Source]:
    """Return what a profile's instructions are made of; the first source is that of the table `instructions`."""
    experiments = profile.experiments
    sources = [Source("instructions", False, CHOOSE)]
    choose: dict[str, Choose] = {}
    if experiments.shuffled:
        choose[SHUFFLED] = lambda view: view.caption if view.drawn else None
    if experiments.verdict_only:
        choose[VERDICT_ONLY] = lambda view: _MARK if view.verdict else None
    sets = experiments.voter_sets
    for name, voters in zip(_set_names(sets), sets, strict=True):
        choose[name] = functools.partial(_majority, voters)
    if choose:
        sources.append(Source(EXPERIMENTS, False, choose))
    if experiments.context_free:
        sources.append(Source(EXPERIMENTS, True, {CONTEXT_FREE: _won}))
    return sources


def _set_names(sets: Sequence[Sequence[str]]) -> list[str]:
    """Name sets of voters: by their size where it is unique."""
    sizes = [len(names) for names in sets]
    return [f"voters-{len(names)}" if sizes.count(len(names)) == 1 else f"voters-{'-'.join(names)}" for names in sets]


def _majority(voters: Sequence[str], view: Captioned) -> str | None:
    lacking = [name for name in voters if name not in view.answers]
    if view.answers and lacking:
        raise RunError(
            f"{', '.join(lacking)} did not vote on every view, as experiments.voter_sets requires: run caption with the"
            " same profile and votes.schedule=full"
        )
    return view.caption if count([view.answers.get(name) for name in voters], len(voters)).verdict else None
