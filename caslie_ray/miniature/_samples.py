"""Makes samples of the seven tasks: text, options, answer, and the ground truth of each image.

As in the paper, an image may show what the text lacks and the answer needs, add nothing (the text already has it, or
nothing can be seen), or mislead (it shows another product).

Which of these it does is drawn independently of the answer: answers follow from the products, and neither the image
kind nor the omissions of the text depend on them. So whether a caption helps does not reveal the answer; its content
does.
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
_DETAILED = 0.35  # fraction of titles that name colour and pattern
_WANTED = ("colour", "pattern", "pattern")  # what shoppers name; context-free captions always name the colour
_HISTORY, _OPTIONS = 2, 3


@dataclass(frozen=True, slots=True)
class DrawnSample:
    """One sample before it is written in the released format: `views` has one truth per image, in order."""

    task: str
    fields: dict[str, str] | list[str]
    options: tuple[str, ...]
    output: str
    views: tuple[ViewTruth, ...]


class World:
    """Draws products, images and samples of one domain from one random generator.

    PRP and SR samples share a shelf of listed products with one image each, so that a product occurs in many samples.

    Args:
        rng: source of randomness.
        domain: of the products; None mixes both.
        shelf: products per category on the shelf.
        combinations: of category, colour and pattern, see `random_look`.
    """

    def __init__(
        self, rng: Random, domain: Domain | None, *, shelf: int = 8, combinations: Combinations = "all"
    ) -> None:
        self.rng = rng
        self.combinations = combinations
        self.categories = categories_of(domain) if domain else categories_of("tools") + categories_of("sports")
        self.shelf = [(listing, self.picture(listing.look)) for listing in self._listings(shelf)]

    def look(self, *, category: str | None = None, avoid: tuple[str, ...] = ()) -> Look:
        """Draw a look of one category, or of any but those in `avoid`."""
        names = (category,) if category else self.categories
        return random_look(self.rng, names, avoid=avoid, combinations=self.combinations)

    def picture(self, look: Look, *, avoid: tuple[str, ...] = (), unmarked: bool = False) -> Picture:
        """Draw an image of a random kind.

        A wrong image shows a product of another category (none in `avoid`), colour and pattern; with `unmarked`, it has
        a brand mark exactly if the product has none.
        """
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
    # An open question asks for the brand, which half of the products have. The document decides the others.
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
    stated = [*others, asked] if case == "documented" else others
    view = ViewTruth(picture, (asked,), (asked,) if case == "open" else (), f"question:{asked}")
    answerable = case == "documented" or (case == "open" and bool(look.brand))
    fields = {"question": rng.choice(QUESTIONS[asked]), "document": document_of(rng, look, stated)}
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
    # Complements of one colour are bought together, products of one category and colour are similar; others also view.
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
    """Draw a query and a product of this relevance: exact, substitute, complement or irrelevant.

    If the product differs from the query's attribute, one of the wanted category is a substitute, and its complement is
    irrelevant.
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
    # One substitute to three others, as in the paper's data (A.5): balanced, a constant yes would score well.
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
    stated = rng.random() < 0.25
    feeling: Feeling = rng.choice(tuple(FEELINGS))
    labels = find_task("SA").labels
    places = {"strong": (0, 4), "weak": (1, 3), "prepared": (1, 2)}[feeling]
    review = review_of(rng, look.category, wanted, stated=stated, right=right, feeling=feeling)
    view = ViewTruth(world.picture(look), (asked,), () if stated else (asked,), "photo")
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
    """Draw samples of a task. Raises KeyError for an unknown code."""
    return [MAKERS[task](world) for _ in range(count)]
