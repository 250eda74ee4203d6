"""Training data of voters: quality prompts with captions, and word look-up drills."""

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
# Two of three words in drills are categories: most verdicts depend on whether text and caption agree on one.
_WORDS = tuple(word for name, values in VALUES.items() for word in values * (1 + (name == "category")))


@dataclass(frozen=True, slots=True)
class Question:
    """A quality prompt with a caption, and whether the caption helps."""

    task: str
    text: str
    answer: bool


@dataclass(frozen=True, slots=True)
class Drill:
    """A text, and words or captions with whether the text has the word or the caption's category."""

    text: str
    asked: tuple[tuple[str, bool], ...]


def _caption(rng: Random, view: ViewTruth, prompt: str) -> str:
    """Draw a caption like the captioner's, sometimes with a detectable error."""
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
    """Draw questions of all tasks; about half have the answer yes.

    Args:
        rng: source of randomness.
        count: number of questions.
        tasks: sampling weights of tasks; 1 for others.
        combinations: of category, colour and pattern, see `random_look`.
    """
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
        # Captions that name no product are easy to recognize, so most of them are left out.
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
    """Yield drills of eight words or captions each (a fraction `captions`); half of the answers are yes."""
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
