"""Exercises for the uniM³ base: comparing two texts, and picking the value that a text names.

Most tasks need these skills: whether query and title name the same category, where they differ, which option is meant.
On longer lists they were hardly learned; on two lines they are learned within a few hundred steps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from caslie_ray.miniature._training.exercises import LABELS, MANNERS, Exercise, Line, looked_up, together
from caslie_ray.miniature.catalogue import (
    CATEGORIES,
    COMPLEMENTS,
    VALUES,
    Look,
    held_out,
    new_listing,
    random_look,
)
from caslie_ray.miniature.truth import phrase

__all__ = ["comparisons", "two_lines"]

_COMPARED = ("category", "colour", "pattern")


def comparisons(rng: Random, count: int, *, questions: int = 8) -> Iterator[Exercise]:
    """Yield exercises on two labelled lines."""
    for _ in range(count):
        lines = two_lines(rng)
        text = "\n".join(map(str, lines))
        yield Exercise(text, tuple(_asked(rng, lines) for _ in range(questions)), rng.random() < 0.5)


def two_lines(rng: Random) -> list[Line]:
    """Draw two labelled lines that often share a category, colour or pattern."""
    labels = rng.choice(LABELS)
    names = rng.sample(labels, 2) if rng.random() < 0.5 else labels[:2]
    return [_line(rng, name, look) for name, look in zip(names, _looks(rng), strict=True)]


def _line(rng: Random, label: str, look: Look) -> Line:
    info = phrase(look, rng.choice(("colour", "both", "both", *MANNERS))) if rng.random() < 0.6 else ""
    if rng.random() < 0.4:
        stated = rng.choice((("colour",), ("pattern",), ("colour", "pattern")))
        return Line(label, " ".join(look.value(name) for name in (*stated, "category")), info)
    return Line(label, new_listing(rng, look, detailed=rng.random() < 0.4).title, info)


def _looks(rng: Random) -> tuple[Look, Look]:
    while True:
        first, second = random_look(rng, CATEGORIES), random_look(rng, CATEGORIES)
        shared = {name: 0.6 if name == "category" else 0.5 for name in _COMPARED}
        second = replace(second, **{n: first.value(n) for n, share in shared.items() if rng.random() < share})
        if second.category != first.category and rng.random() < 0.5:
            second = replace(second, category=COMPLEMENTS[first.category])
        if not held_out(first) and not held_out(second):
            return first, second


def _asked(rng: Random, lines: Sequence[Line]) -> tuple[str, str]:
    kind = rng.random()
    if kind < 0.28:
        return _same(rng, lines)
    if kind < 0.5:
        return _differ(rng, lines)
    if kind < 0.65:
        return together(rng, lines) or _same(rng, lines)
    if kind < 0.85:
        return _choose(rng, lines)
    return looked_up(rng, lines)


def _same(rng: Random, lines: Sequence[Line]) -> tuple[str, str]:
    first, second = rng.sample(lines, 2)
    name = rng.choice(_COMPARED)
    mine, its = first.named.get(name), second.named.get(name)
    answer = "unknown" if mine is None or its is None else "yes" if mine == its else "no"
    return (f"Same {name} in {first.label} and {second.label}?", answer)


def _differ(rng: Random, lines: Sequence[Line]) -> tuple[str, str]:
    first, second = rng.sample(lines, 2)
    apart = [name for name in _COMPARED if len({line.named.get(name) for line in lines} - {None}) == 2]
    return (f"In what do {first.label} and {second.label} differ?", " ".join(apart) or "nothing")


def _choose(rng: Random, lines: Sequence[Line]) -> tuple[str, str]:
    line, name = rng.choice(lines), rng.choice(("category", *_COMPARED))
    right = line.named.get(name)
    others = [value for value in VALUES[name] if value not in {one.named.get(name) for one in lines}]
    offered = [*rng.sample(others, min(len(others), rng.randint(2, 4))), *([right] if right else [])]
    rng.shuffle(offered)
    return (f"Which of these does {line.label} name?\n" + "\n".join(offered), right or "none")
