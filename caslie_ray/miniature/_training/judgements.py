"""Exercises for the uniM³ base: judging two lines of a form by what they share, which a larger model can do unaided.

Forms look like the prompts of the tasks: the question first, then the lines and options. One in three is such a prompt.
The answers only compare lines; what follows for the task is left to fine-tuning.
"""

from collections.abc import Iterator, Sequence
from random import Random

from caslie_ray.miniature._records import sample_of
from caslie_ray.miniature._reviews import FEELINGS, review_of
from caslie_ray.miniature._samples import MAKERS, World
from caslie_ray.miniature._training.comparisons import two_lines
from caslie_ray.miniature._training.exercises import Exercise, Line, lines_of
from caslie_ray.miniature.catalogue import CATEGORIES, COMPLEMENTS, VALUES, random_look
from caslie_ray.miniature.truth import caption_of, named_in, phrase
from caslie_ray.tasks import find_task

__all__ = ["KINDS", "judgements"]

KINDS = ("twin", "variant", "partner", "stranger")
"""Same category and value, same category only, same value only, neither."""

_ON_PROMPTS = 0.35
_SPOKEN = {"colour": "color", "pattern": "pattern"}
_COMPARED = ("PRP", "PSI", "MPC", "PSI", "MPC", "PRP", "SA", "SR")


def judgements(rng: Random, count: int, *, questions: int = 6) -> Iterator[Exercise]:
    """Yield exercises; in two of three the first question precedes the text."""
    world = World(rng, rng.choice(("tools", "sports", None)), combinations="seen")
    for _ in range(count):
        if rng.random() < _ON_PROMPTS:
            task = rng.choice(_COMPARED)
            text = _prompt(rng, world, task)
            lines = lines_of(text)
            ask = {"SA": _ask_review, "SR": _ask_list}.get(task, _ask_pair)
        else:
            ask = rng.choice((_ask_pair, _ask_pair, _ask_pair, _ask_review, _ask_list))
            lines, text = _form(rng, ask)
        # Each question once, since a repeated answer could be copied.
        asked = dict(ask(rng, lines) for _ in range(3 * questions))
        yield Exercise(text, tuple(asked.items())[:questions], rng.random() < 0.65)


def _prompt(rng: Random, world: World, task: str) -> str:
    """Draw a task's prompt with three of four captions given."""
    sample = MAKERS[task](world)
    captions = [caption_of(view) if rng.random() < 0.75 else None for view in sample.views]
    return find_task(task).prompt(sample_of(sample), captions).text


def _form(rng: Random, ask: object) -> tuple[list[Line], str]:
    if ask is _ask_review:
        lines = [_review(rng)]
    elif ask is _ask_list:
        lines = lines_of(_prompt(rng, World(rng, None, shelf=3, combinations="seen"), "SR"))
    else:
        lines = two_lines(rng)
    return lines, "\n".join(map(str, lines))


def _review(rng: Random) -> Line:
    look = random_look(rng, CATEGORIES, combinations="seen")
    name = rng.choice(("colour", "pattern"))
    wanted = look.value(name) if rng.random() < 0.5 else rng.choice(VALUES[name])
    feeling = rng.choice(tuple(FEELINGS))
    text = review_of(rng, look.category, wanted, stated=False, right=False, feeling=feeling)
    shown = look if rng.random() < 0.7 else random_look(rng, CATEGORIES, combinations="seen")
    return Line(rng.choice(("review", "note", "query")), text, phrase(shown, "photo") if rng.random() < 0.85 else "")


def _ask_pair(rng: Random, lines: Sequence[Line]) -> tuple[str, str]:
    first, second = lines[:2] if rng.random() < 0.7 else lines[1::-1]
    name = _asked_of(rng, first, second)
    mine, its = first.named, second.named
    known = name in mine and name in its
    kind = mine.get("category") == its.get("category")
    match rng.randrange(5):
        case 0:
            what = f"By {_SPOKEN[name]}, what is {second.label} to {first.label}?"
            if not known:
                return what, "unclear " + ("kind" if kind else "other")
            return what, KINDS[2 * (not kind) + (mine[name] != its[name])]
        case 1:
            answer = "unknown" if not known else "yes" if kind and mine[name] != its[name] else "no"
            return f"Do {first.label} and {second.label} differ in {_SPOKEN[name]} alone?", "no" if not kind else answer
        case 2:
            wanted = {**named_in(first.text)} if rng.random() < 0.5 else mine
            wanted = {n: v for n, v in wanted.items() if n in ("category", *_SPOKEN)}
            if any(n in its and its[n] != v for n, v in wanted.items()):
                answer = "no"
            else:
                answer = "yes" if all(n in its for n in wanted) else "unknown"
            words = " ".join(wanted[n] for n in ("colour", "pattern", "category") if n in wanted)
            return f"Is {second.label} a {words}?", answer
        case 3:
            pair = COMPLEMENTS.get(mine.get("category", "")) == its.get("category")
            return (
                f"Are {first.label} and {second.label} of one kind, a pair, or neither?",
                "one kind" if kind else "a pair" if pair else "neither",
            )
        case _:
            same = "unknown" if not known else "yes" if mine[name] == its[name] else "no"
            return f"Same {_SPOKEN[name]} in {first.label} and {second.label}?", same


def _asked_of(rng: Random, first: Line, second: Line) -> str:
    names = [name for name in _SPOKEN if name in named_in(first.text)]
    both = [name for name in _SPOKEN if name in first.named and name in second.named]
    return rng.choice(names if len(names) == 1 and rng.random() < 0.6 else both or tuple(_SPOKEN))


def _ask_review(rng: Random, lines: Sequence[Line]) -> tuple[str, str]:
    line = lines[0]
    wanted, shown = named_in(line.text), named_in(line.info)
    name = next((name for name in _SPOKEN if name in wanted), "category")
    same = "unknown" if name not in shown else "yes" if wanted.get(name) == shown[name] else "no"
    match rng.randrange(4):
        case 0:
            return f"What does {line.label} name, and what does its image show?", (
                f"{wanted.get(name, 'nothing')} and {shown.get(name, 'nothing')}"
            )
        case 1:
            kind = "unknown" if not line.info else "yes" if wanted.get("category") == shown.get("category") else "no"
            return f"Is the kind in {line.label} that of its image?", kind
        case _:
            return f"Does the image of {line.label} show what it names?", same


def _ask_list(rng: Random, lines: Sequence[Line]) -> tuple[str, str]:
    past = [line for line in lines if line.label[0].isdigit()]
    options = [line for line in lines if not line.label[0].isdigit()]
    colours = {line.named["colour"] for line in past if "colour" in line.named}
    named = [line for line in options if line.named.get("colour") in colours]
    match rng.randrange(4):
        case 0:
            line = rng.choice(lines)
            return f"Which color has {line.label}?", line.named.get("colour", "none")
        case 1:
            return "Which color has the history?", min(colours) if len(colours) == 1 else "none"
        case _:
            if len(colours) == 1 and len(named) == 1:
                return "Which option has the color of the history?", f"{named[0].label}: {named[0].text}"
            line = rng.choice(options)
            same = "unknown" if not colours or "colour" not in line.named else "yes" if line in named else "no"
            return f"Has {line.label} the color of the history?", same
