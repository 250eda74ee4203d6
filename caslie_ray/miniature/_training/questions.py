"""What voters are trained on: quality prompts with captions in them, and drills in looking words up."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from caslie_ray.miniature._records import prompts_of
from caslie_ray.miniature._reviews import DOCUMENTED, document_of
from caslie_ray.miniature._samples import MAKERS, World
from caslie_ray.miniature.catalogue import CATEGORIES, VALUES, Combinations, new_listing, random_look
from caslie_ray.miniature.truth import ViewTruth, caption_of, context_free_caption, helps, phrase

__all__ = ["Drill", "Question", "drills", "questions"]

_MANNERS = ("category", "colour", "both", "photo", *(f"question:{name}" for name in DOCUMENTED))
# Two of three words that a drill asks for are categories: whether text and caption agree on one is what
# most verdicts come down to.
_WORDS = tuple(word for name, values in VALUES.items() for word in values * (1 + (name == "category")))


@dataclass(frozen=True, slots=True)
class Question:
    """A quality prompt with a caption in it, and whether the caption helps."""

    task: str
    text: str
    answer: bool


@dataclass(frozen=True, slots=True)
class Drill:
    """A text, and words or captions each with whether the text has the word, or the caption's category."""

    text: str
    asked: tuple[tuple[str, bool], ...]


def _caption(rng: Random, view: ViewTruth, prompt: str) -> str:
    """A caption as the captioner writes it, or with one of its faults that a reader can notice."""
    shown = view.picture.shown
    if shown is None or rng.random() < 0.7:
        return caption_of(view)
    fault = rng.random()
    if fault < 0.4:
        others = [name for name in CATEGORIES if name not in prompt]
        return caption_of(view).replace(f" {shown.category}", f" {rng.choice(others)}")
    if fault < 0.6:
        return context_free_caption(view)
    return phrase(shown, rng.choice(_MANNERS))


def questions(
    rng: Random, count: int, tasks: Mapping[str, float], *, combinations: Combinations = "seen"
) -> list[Question]:
    """Questions of all tasks, about half of them with the answer yes; `tasks` gives the tasks that come more or
    less often than the others (weight 1). Of the captions that do not help, those that name no product are the
    easiest to tell and mostly left out."""
    world = World(rng, rng.choice(("tools", "sports", None)), combinations=combinations)
    names = tuple(MAKERS)
    weights = [tasks.get(name, 1.0) for name in names]
    found: list[Question] = []
    while len(found) < count:
        name = rng.choices(names, weights)[0]
        sample = MAKERS[name](world)
        at = rng.randrange(len(sample.views))
        prompt = prompts_of(sample)[at].quality
        caption = _caption(rng, sample.views[at], prompt.text)
        answer = helps(caption, sample.views[at])
        if answer or rng.random() < (0.3 if sample.views[at].picture.shown is None else 0.7):
            found.append(Question(name, prompt.fill("caption", caption).text, answer))
    return found


def _drill_text(rng: Random) -> str:
    look = random_look(rng, CATEGORIES, combinations="seen")
    kind = rng.randrange(4)
    if kind == 0:
        return new_listing(rng, look, detailed=rng.random() < 0.35).title
    if kind == 1:
        return ", ".join(rng.sample(CATEGORIES, 5))
    if kind == 2:
        return document_of(rng, look, rng.sample(DOCUMENTED, rng.randint(1, 3)))
    return f"I ordered a {look.colour} {look.category} for my sister"


def drills(rng: Random, count: int, captions: float) -> Iterator[Drill]:
    """Drills of eight words or captions each; a share `captions` of them captions. Half of the answers are yes."""
    for _ in range(count):
        text = _drill_text(rng)
        words = set(text.replace(",", "").split())
        inside = [word for word in _WORDS if word in words]
        categories = [word for word in inside if word in CATEGORIES]
        asked = []
        for _ in range(8):
            wanted = rng.random() < 0.5
            if rng.random() < captions:
                category = rng.choice(categories if wanted else CATEGORIES)
                look = random_look(rng, (category,), combinations="seen")
                asked.append((phrase(look, rng.choice(_MANNERS)), category in words))
            else:
                word = rng.choice(inside if wanted else _WORDS)
                asked.append((word, word in words))
        yield Drill(text, tuple(asked))
