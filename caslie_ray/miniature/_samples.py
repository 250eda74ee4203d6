"""Makes samples of the seven tasks: text, options, answer, and for each picture the truth.

A picture matters as in the paper: it may hold what the text lacks and the answer needs, add nothing
(because the text says it already, or nothing can be seen), or mislead (another product's picture).

Which of these it does is drawn independently of the answer: answers follow from the products, and what is drawn of a
product, and what its text leaves open, are chosen without looking at them. So whether a caption is worth using does not
tell the answer; what it says does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from caslie_ray.miniature._reviews import DOCUMENTED, FEELINGS, QUESTIONS, Feeling, document_of, review_of
from caslie_ray.miniature.catalogue import (
    COMPLEMENTS,
    VALUES,
    Combinations,
    Domain,
    Listing,
    Look,
    categories_of,
    new_listing,
    random_look,
)
from caslie_ray.miniature.drawing import Kind, Picture
from caslie_ray.miniature.truth import ViewTruth
from caslie_ray.tasks import find_task

__all__ = ["MAKERS", "DrawnSample", "World"]

_KINDS: tuple[Kind, ...] = ("informative", "placeholder", "blurred", "wrong")
_SHARES = (0.55, 0.12, 0.11, 0.22)
_DETAILED = 0.35  # share of titles that name colour and pattern
_WANTED = ("colour", "pattern", "pattern")  # what shoppers name; captions without context name colours unasked
_HISTORY, _OPTIONS = 2, 3


@dataclass(frozen=True, slots=True)
class DrawnSample:
    """One sample of the released format before it is written: `views` has one truth an image, in order."""

    task: str
    fields: dict[str, str] | list[str]
    options: tuple[str, ...]
    output: str
    views: tuple[ViewTruth, ...]


class World:
    """Draws products, pictures and samples of one domain from one generator.

    PRP and SR samples share a shelf of listed products with one picture each, so that one product is met in
    many samples. `combinations` are those of category, colour and pattern to draw: see `random_look`.
    """

    def __init__(
        self, rng: Random, domain: Domain | None, *, shelf: int = 8, combinations: Combinations = "all"
    ) -> None:
        """`domain` None mixes both; `shelf` is the number of products a category on the shelf."""
        self.rng = rng
        self.combinations = combinations
        self.categories = categories_of(domain) if domain else categories_of("tools") + categories_of("sports")
        self.shelf = [(listing, self.picture(listing.look)) for listing in self._listings(shelf)]

    def look(self, *, category: str | None = None, avoid: tuple[str, ...] = ()) -> Look:
        """A random look, of one category or of any but those in `avoid`."""
        names = (category,) if category else self.categories
        return random_look(self.rng, names, avoid=avoid, combinations=self.combinations)

    def picture(self, look: Look, *, avoid: tuple[str, ...] = (), unmarked: bool = False) -> Picture:
        """A picture of a kind drawn by its share. A wrong one shows a product of another category (none in
        `avoid`), colour and pattern, and where `unmarked` products come too, with a brand mark if the product has none,
        and without one if it has."""
        kind = self.rng.choices(_KINDS, _SHARES)[0]
        shown: Look | None = look if kind == "informative" else None
        while kind == "wrong" and (shown is None or shown.colour == look.colour or shown.pattern == look.pattern):
            shown = self.look(avoid=(look.category, COMPLEMENTS[look.category], *avoid))
            shown = replace(shown, brand="" if look.brand and unmarked else shown.brand)
        return Picture(kind, look, shown, self.rng.getrandbits(32))

    def _listings(self, count: int) -> list[Listing]:
        listings = []
        for category in self.categories:
            looks: list[Look] = []
            for _ in range(count):
                look = self.look(category=category)
                twin = self.rng.choice(looks) if looks and self.rng.random() < 0.5 else None
                while twin and (look.colour != twin.colour):
                    look = self.look(category=category)
                looks.append(look)
                listings.append(new_listing(self.rng, look, detailed=self.rng.random() < _DETAILED))
        return listings


def _answerability(world: World) -> DrawnSample:
    rng = world.rng
    # An open question asks for the brand, which half of the products bear. The others are decided by the document.
    case = rng.choices(("open", "documented", "undocumented"), (50, 25, 25))[0]
    look = world.look()
    if rng.random() < 0.5 and case != "documented":
        look = replace(look, brand="")
    picture = world.picture(look, unmarked=True)
    if case == "open":
        asked = "brand"
    elif case == "documented":
        asked = rng.choice(DOCUMENTED)
    else:
        asked = rng.choice([name for name in DOCUMENTED if name not in VALUES])
    others = rng.sample([name for name in DOCUMENTED if name not in (asked, "brand")], rng.randint(1, 2))
    told = [*others, asked] if case == "documented" else others
    view = ViewTruth(picture, (asked,), (asked,) if case == "open" else (), f"question:{asked}")
    answerable = case == "documented" or (case == "open" and bool(look.brand))
    fields = {"question": rng.choice(QUESTIONS[asked]), "document": document_of(rng, look, told)}
    return DrawnSample("AP", fields, ("yes", "no"), "yes" if answerable else "no", (view,))


def _category(world: World) -> DrawnSample:
    rng, look = world.rng, world.look()
    others = rng.sample([name for name in world.categories if name != look.category], 5)
    options = [look.category, *others[:4]]
    rng.shuffle(options)
    picture = world.picture(look, avoid=tuple(options))
    listing = new_listing(rng, look, detailed=rng.random() < _DETAILED, named=False, hinted=rng.random() < 0.3)
    view = ViewTruth(picture, ("category",), ("category",), "category")
    return DrawnSample("CC", {"title": listing.title}, tuple(options), look.category, (view,))


def _relation(world: World) -> DrawnSample:
    rng = world.rng
    buy, seen, similar = find_task("PRP").labels
    pairs: list[tuple[tuple[Listing, Picture], tuple[Listing, Picture]]] = []
    # Complements in one colour are a set, and products of a kind and colour are alike; another colour parts them.
    alike = rng.random() < 0.55
    complement = rng.random() < 0.5
    while not pairs:
        first = rng.choice(world.shelf)
        mine = first[0].look
        category = COMPLEMENTS[mine.category] if complement else mine.category
        for other in world.shelf:
            its = other[0].look
            if its.category == category and (its.colour == mine.colour) == alike and other[0].title != first[0].title:
                pairs.append((first, other))
    pair = rng.choice(pairs)
    views = tuple(
        ViewTruth(picture, ("colour",), () if listing.detailed else ("colour",), "colour") for listing, picture in pair
    )
    fields = {"product 1": pair[0][0].title, "product 2": pair[1][0].title}
    relation = seen if not alike else buy if complement else similar
    return DrawnSample("PRP", fields, (buy, seen, similar), relation, views)


def _query(world: World, relevance: str) -> tuple[dict[str, str], ViewTruth]:
    """A query and a product title whose relevance is exact, substitute, complement or irrelevant.

    A product of the wanted kind is a substitute where it differs in what is asked; a complement of the wanted kind is
    irrelevant there.
    """
    rng, look = world.rng, world.look()
    asked = rng.choice(_WANTED)
    wanted = look.as_dict()
    if relevance in ("substitute", "irrelevant"):
        wanted[asked] = rng.choice([value for value in VALUES[asked] if value != wanted[asked]])
    if relevance in ("complement", "irrelevant"):
        wanted["category"] = COMPLEMENTS[look.category]
    listing = new_listing(rng, look, detailed=rng.random() < _DETAILED)
    view = ViewTruth(world.picture(look), (asked,), () if listing.detailed else (asked,), "both")
    return {"query": f"{wanted[asked]} {wanted['category']}", "product title": listing.title}, view


def _substitute(world: World) -> DrawnSample:
    # One substitute to three others, as in the paper's data (A.5): were they as many, a constant yes would score well.
    relevance = world.rng.choices(("exact", "substitute", "complement", "irrelevant"), (35, 25, 20, 20))[0]
    fields, view = _query(world, relevance)
    return DrawnSample("PSI", fields, ("yes", "no"), "yes" if relevance == "substitute" else "no", (view,))


def _relevance(world: World) -> DrawnSample:
    labels = find_task("MPC").labels
    relevance = world.rng.choices(labels, (30, 30, 20, 20))[0]
    fields, view = _query(world, relevance)
    return DrawnSample("MPC", fields, labels, relevance, (view,))


def _sentiment(world: World) -> DrawnSample:
    rng, look = world.rng, world.look()
    asked = rng.choice(_WANTED)
    right = rng.random() < 0.5
    others = [value for value in VALUES[asked] if value != look.value(asked)]
    wanted = look.value(asked) if right else rng.choice(others)
    told = rng.random() < 0.25
    feeling: Feeling = rng.choice(tuple(FEELINGS))
    labels = find_task("SA").labels
    places = {"strong": (0, 4), "weak": (1, 3), "prepared": (1, 2)}[feeling]
    review = review_of(rng, look.category, wanted, told=told, right=right, feeling=feeling)
    view = ViewTruth(world.picture(look), (asked,), () if told else (asked,), "photo")
    return DrawnSample("SA", {"review": review}, labels, labels[places[0] if right else places[1]], (view,))


def _recommendation(world: World) -> DrawnSample:
    rng = world.rng
    while True:
        following = rng.choice(world.shelf)
        liked = following[0].look.colour
        fans = [item for item in world.shelf if item[0].look.colour == liked and item is not following]
        rest = [item for item in world.shelf if item[0].look.colour != liked]
        if len(fans) >= _HISTORY and len(rest) >= _OPTIONS - 1:
            break
    history = rng.sample(fans, _HISTORY)
    options = [following, *rng.sample(rest, _OPTIONS - 1)]
    rng.shuffle(options)
    titles = [f"{chr(65 + i)}: {listing.title}" for i, (listing, _) in enumerate(options)]
    past = [f"{place}: {listing.title}" for place, (listing, _) in zip(("1st", "2nd"), history, strict=True)]
    views = tuple(
        ViewTruth(picture, ("colour",), () if listing.detailed else ("colour",), "both")
        for listing, picture in (*history, *options)
    )
    return DrawnSample("SR", past, tuple(titles), titles[options.index(following)], views)


MAKERS: dict[str, Callable[[World], DrawnSample]] = {
    "AP": _answerability,
    "CC": _category,
    "PRP": _relation,
    "PSI": _substitute,
    "MPC": _relevance,
    "SA": _sentiment,
    "SR": _recommendation,
}


def make(world: World, task: str, count: int) -> Sequence[DrawnSample]:
    """`count` samples of a task. Raises KeyError for a code that is no task."""
    return [MAKERS[task](world) for _ in range(count)]
