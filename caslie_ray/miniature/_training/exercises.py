"""Exercises for the uniM³ base before fine-tuning: copying, looking up, comparing, and which products go together.

An exercise is a text of labelled lines with questions. On prompts of the tasks, questions only look up values; they
never ask the task's question.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from caslie_ray.miniature._records import sample_of
from caslie_ray.miniature._reviews import DOCUMENTED, FEELINGS, document_of, review_of
from caslie_ray.miniature._samples import MAKERS, World
from caslie_ray.miniature.catalogue import (
    CATEGORIES,
    COMPLEMENTS,
    USES,
    VALUES,
    Look,
    held_out,
    new_listing,
    random_look,
)
from caslie_ray.miniature.truth import caption_of, named_in, phrase
from caslie_ray.tasks import find_task

__all__ = ["LABELS", "MANNERS", "Exercise", "Line", "exercises", "lines_of", "looked_up", "together"]

LABELS = (
    tuple("ABCDEFG"),
    ("1st", "2nd", "3rd", "4th", "5th", "6th", "7th"),
    tuple(f"product {n}" for n in range(1, 8)),
    ("query", "title", "product title", "review", "document", "question", "note"),
)
_INFO = ("information from its image", "information from the product image")
_SPOKEN = ("category", "colour", "pattern", "size", "brand")
MANNERS = ("category", "colour", "both", "photo", *(f"question:{name}" for name in DOCUMENTED))
_LONGEST = 12  # words of a line that an answer may copy


@dataclass(frozen=True, slots=True)
class Line:
    """A labelled line, and a caption of its image (may be empty)."""

    label: str
    text: str
    info: str = ""

    @property
    def named(self) -> dict[str, str]:
        """The first value of each attribute that the line or its caption names."""
        return named_in(f"{self.text} {self.info}")

    def __str__(self) -> str:
        return f"{self.label}: {self.text}" + (f"\n{_INFO[0]}: {self.info}" if self.info else "")


@dataclass(frozen=True, slots=True)
class Exercise:
    """A text, and questions with answers; `asked_first`: the first question precedes the text."""

    text: str
    asked: tuple[tuple[str, str], ...]
    asked_first: bool


def exercises(rng: Random, count: int, *, hard: float = 1.0, questions: int = 8) -> Iterator[Exercise]:
    """Yield exercises: one in four on a task's prompt, the others on lists, longer with higher `hard` (0 to 1)."""
    world = World(rng, rng.choice(("tools", "sports", None)), combinations="seen")
    for _ in range(count):
        if rng.random() < 0.25:
            sample = MAKERS[rng.choice(tuple(MAKERS))](world)
            captions = [caption_of(view) if rng.random() < 0.6 else None for view in sample.views]
            text = find_task(sample.task).prompt(sample_of(sample), captions).text
            asked = tuple(looked_up(rng, lines_of(text)) for _ in range(questions))
            yield Exercise(text, asked, False)
        else:
            lines = _lines(rng, hard)
            text = "\n".join(map(str, lines))
            asked = tuple(_asked(rng, lines) for _ in range(questions))
            yield Exercise(text, asked, rng.random() < 0.5)


_LABELLED = re.compile(r"^([\w ]{1,20}): (.*)$")


def lines_of(text: str) -> list[Line]:
    """Return the labelled lines of a prompt, each with the information from its image."""
    found: list[Line] = []
    for row in text.splitlines():
        match = _LABELLED.match(row)
        if row.startswith("information from") and found:
            found[-1] = Line(found[-1].label, found[-1].text, row.partition(": ")[2])
        elif match:
            found.append(Line(match[1], match[2]))
    return found


def _lines(rng: Random, hard: float) -> list[Line]:
    labels = rng.choice(LABELS)
    count = rng.randint(2, 2 + round(5 * hard))
    names = labels[:count] if labels is not LABELS[-1] else rng.sample(labels, count)
    # Few values, so that lines share some.
    few = {
        "category": rng.sample(CATEGORIES, rng.randint(1, 4)),
        "colour": rng.sample(VALUES["colour"], rng.randint(1, 4)),
        "pattern": rng.sample(VALUES["pattern"], rng.randint(1, 4)),
    }
    few["category"] += [COMPLEMENTS[name] for name in few["category"]]
    lines = []
    kind, shown = rng.randrange(6), rng.choice((0.0, 0.5, 1.0))
    for label in names:
        look = _look(rng, few)
        info = phrase(look, rng.choice(MANNERS)) if rng.random() < shown else ""
        match kind if kind < 5 else rng.randrange(5):
            case 0 | 1:
                text = new_listing(rng, look, detailed=rng.random() < 0.5, named=rng.random() < 0.9).title
            case 2:
                text = (
                    " ".join(
                        look.value(name) for name in rng.choice((("colour",), ("pattern",), ("colour", "pattern")))
                    )
                    + f" {look.category}"
                )
            case 3:
                text = document_of(rng, look, rng.sample(DOCUMENTED, 2))
            case _:
                text = review_of(
                    rng,
                    look.category,
                    rng.choice((look.colour, look.pattern)),
                    stated=rng.random() < 0.3,
                    right=rng.random() < 0.5,
                    feeling=rng.choice(tuple(FEELINGS)),
                )
        lines.append(Line(label, text, info))
    return lines


def _look(rng: Random, few: Mapping[str, Sequence[str]]) -> Look:
    while True:
        look = random_look(rng, CATEGORIES)
        look = replace(look, **{name: rng.choice(values) for name, values in few.items()})
        if not held_out(look):
            return look


def _asked(rng: Random, lines: Sequence[Line]) -> tuple[str, str]:
    kind = rng.random()
    if kind < 0.03:
        return _write_some(rng, lines)
    if kind < 0.18:
        return _known(rng)
    if kind < 0.6:
        return looked_up(rng, lines)
    found = None
    while found is None:
        found = rng.choice((_same, _same, _most, _alike, together))(rng, lines)
    return found


def looked_up(rng: Random, lines: Sequence[Line]) -> tuple[str, str]:
    """Draw a look-up question and its answer."""
    found = None
    while found is None:
        found = rng.choice((_write, _which, _shown, _find, _is_named))(rng, lines)
        if found and found[1] == "none" and rng.random() < 0.6:
            found = None
    return found


def _write_some(rng: Random, lines: Sequence[Line]) -> tuple[str, str]:
    short = [line for line in lines if len(line.text.split()) <= _LONGEST] or lines[:1]
    some = rng.sample(short, rng.randint(1, len(short)))
    return (f"Write {', '.join(line.label for line in some)}.", "\n".join(map(str, some)))


def _write(rng: Random, lines: Sequence[Line]) -> tuple[str, str] | None:
    short = [line for line in lines if len(line.text.split()) <= _LONGEST]
    if not short:
        return ("Write the label of the last line.", lines[-1].label)
    line = rng.choice(short)
    return (f"Write {line.label}.", line.text)


def _which(rng: Random, lines: Sequence[Line]) -> tuple[str, str]:
    line, name = rng.choice(lines), rng.choice(_SPOKEN)
    return (f"Which {name} does {line.label} name?", named_in(line.text).get(name, "none"))


def _shown(rng: Random, lines: Sequence[Line]) -> tuple[str, str]:
    line, name = rng.choice(lines), rng.choice(_SPOKEN)
    return (f"Which {name} does the image of {line.label} show?", named_in(line.info).get(name, "none"))


def _find(rng: Random, lines: Sequence[Line]) -> tuple[str, str] | None:
    values = Counter(value for line in lines for value in set(line.named.values()))
    # Sorted, so that a seed draws the same exercises in every process.
    alone = sorted(value for value, count in values.items() if count == 1)
    if not alone:
        return None
    value = rng.choice(alone)
    (line,) = (line for line in lines if value in line.named.values())
    if len(line.text.split()) > _LONGEST:
        return (f"Which line has {value}?", line.label)
    return (f"Which line has {value}?", f"{line.label}: {line.text}")


def _is_named(rng: Random, lines: Sequence[Line]) -> tuple[str, str]:
    inside = sorted({value for line in lines for value in line.named.values()})
    name = rng.choice(("category", "category", "colour", "pattern"))
    value = rng.choice(inside) if inside and rng.random() < 0.5 else rng.choice(VALUES[name])
    return (f"Is {value} named?", "yes" if value in inside else "no")


def _same(rng: Random, lines: Sequence[Line]) -> tuple[str, str] | None:
    first, second = rng.sample(lines, 2)
    name = rng.choice(("category", "colour", "pattern"))
    mine, its = first.named.get(name), second.named.get(name)
    if mine is None or its is None:
        return None if rng.random() < 0.8 else (f"Same {name} in {first.label} and {second.label}?", "unknown")
    return (f"Same {name} in {first.label} and {second.label}?", "yes" if mine == its else "no")


def _most(rng: Random, lines: Sequence[Line]) -> tuple[str, str] | None:
    name = rng.choice(("category", "colour", "pattern"))
    values = Counter(line.named[name] for line in lines if name in line.named).most_common(2)
    if not values or values[0][1] < 2 or (len(values) > 1 and values[1][1] == values[0][1]):
        return None
    return (f"Which {name} is named most?", values[0][0])


def _alike(rng: Random, lines: Sequence[Line]) -> tuple[str, str] | None:
    line, name = rng.choice(lines), rng.choice(("category", "colour", "pattern"))
    value = line.named.get(name)
    others = [other for other in lines if other is not line and value and other.named.get(name) == value]
    if len(others) != 1:
        return None
    other = others[0]
    answer = f"{other.label}: {other.text}" if len(other.text.split()) <= _LONGEST else other.label
    return (f"Which other line has the {name} of {line.label}?", answer)


def together(rng: Random, lines: Sequence[Line]) -> tuple[str, str] | None:
    """Ask whether two lines' categories are bought together; None if one names none, and mostly if they are not."""
    first, second = rng.sample(lines, 2)
    mine, its = first.named.get("category"), second.named.get("category")
    if mine is None or its is None or (COMPLEMENTS[mine] != its and rng.random() < 0.6):
        return None
    return (f"Are {first.label} and {second.label} used together?", "yes" if COMPLEMENTS[mine] == its else "no")


def _known(rng: Random) -> tuple[str, str]:
    category = rng.choice(CATEGORIES)
    kind = rng.randrange(3)
    if kind == 0:
        return (f"What is used with a {category}?", COMPLEMENTS[category])
    if kind == 1:
        return (f"What is {USES[category]}?", category)
    return (f"What is a {category} for?", USES[category])
