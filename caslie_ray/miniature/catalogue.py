"""The products of the miniature world: categories, appearance and titles."""

from dataclasses import dataclass, fields
from random import Random
from typing import Literal

__all__ = [
    "ATTRIBUTES",
    "BRANDS",
    "CATEGORIES",
    "COLOURS",
    "COMPLEMENTS",
    "PATTERNS",
    "SIZES",
    "SPORTS",
    "TOOLS",
    "USES",
    "VALUES",
    "Combinations",
    "Domain",
    "Listing",
    "Look",
    "held_out",
    "new_listing",
    "random_look",
]

Domain = Literal["tools", "sports"]
Combinations = Literal["all", "seen", "held_out"]

# Adjacent pairs in each list (0 and 1, 2 and 3, ...) complement each other.
TOOLS = (
    "hammer", "toolbox", "mug", "kettle", "ladder", "bucket", "lamp",
    "plug", "shovel", "barrow", "funnel", "bottle", "padlock", "key",
)  # fmt: skip
SPORTS = ("ball", "racket", "helmet", "skate", "tent", "backpack", "dumbbell", "medal")
CATEGORIES = TOOLS + SPORTS
COLOURS = {
    "red": (210, 40, 40),
    "blue": (40, 70, 210),
    "green": (40, 160, 60),
    "yellow": (230, 200, 40),
    "black": (30, 30, 30),
    "purple": (130, 50, 170),
    "orange": (240, 130, 30),
    "gray": (130, 130, 130),
}
PATTERNS = ("plain", "striped", "dotted", "checked")
SIZES = ("small", "large")
BRANDS = ("Norde", "Kivo", "Borel", "Zenta")
ADJECTIVES = ("Classic", "Deluxe", "Everyday", "Compact", "Premium", "Handy", "Outdoor", "Modern")

VALUES: dict[str, tuple[str, ...]] = {
    "category": CATEGORIES,
    "colour": tuple(COLOURS),
    "pattern": PATTERNS,
    "size": SIZES,
    "brand": BRANDS,
}
ATTRIBUTES = tuple(VALUES)

COMPLEMENTS = {
    name: names[i ^ 1] for names in (TOOLS, SPORTS) for i, name in enumerate(names)
}  # each category's complement: bought together with it

USES = {
    "hammer": "for nails", "toolbox": "for storage", "mug": "for coffee", "kettle": "for tea",
    "ladder": "for climbing", "bucket": "for water", "lamp": "for light", "plug": "for power",
    "shovel": "for digging", "barrow": "for hauling", "funnel": "for pouring", "bottle": "for drinks",
    "padlock": "for gates", "key": "for doors", "ball": "for games", "racket": "for tennis",
    "helmet": "for safety", "skate": "for ice", "tent": "for camping", "backpack": "for hiking",
    "dumbbell": "for lifting", "medal": "for winners",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Look:
    """Everything that a drawing shows of a product: one value of `VALUES` per attribute.

    The brand is empty if the product has no brand mark.
    """

    category: str
    colour: str
    pattern: str
    size: str
    brand: str

    def value(self, attribute: str) -> str:
        """Return the value of one attribute. Raises AttributeError for an unknown name."""
        return str(getattr(self, attribute))

    def as_dict(self) -> dict[str, str]:
        """Return the values by attribute, in the order of `ATTRIBUTES`."""
        return {field.name: self.value(field.name) for field in fields(self)}


def held_out(look: Look) -> bool:
    """Return whether this (category, colour, pattern) is excluded from the training of all checkpoints.

    One combination in five is held out, spread so that training still has every category, colour and pattern, each
    with most values of the others.
    """
    category = CATEGORIES.index(look.category)
    colour = VALUES["colour"].index(look.colour)
    return (category + 2 * colour + 3 * PATTERNS.index(look.pattern)) % 5 == 0


def categories_of(domain: Domain) -> tuple[str, ...]:
    """Return the categories of a domain."""
    return TOOLS if domain == "tools" else SPORTS


def random_look(
    rng: Random, categories: tuple[str, ...], *, avoid: tuple[str, ...] = (), combinations: Combinations = "all"
) -> Look:
    """Draw a look uniformly.

    Args:
        rng: source of randomness.
        categories: possible categories.
        avoid: categories to exclude.
        combinations: all combinations, those that checkpoints are trained on (`seen`), or only the held-out ones.
    """
    choices = [name for name in categories if name not in avoid]
    while True:
        look = Look(
            category=rng.choice(choices),
            colour=rng.choice(VALUES["colour"]),
            pattern=rng.choice(PATTERNS),
            size=rng.choice(SIZES),
            brand=rng.choice(BRANDS),
        )
        if combinations == "all" or held_out(look) == (combinations == "held_out"):
            return look


@dataclass(frozen=True, slots=True)
class Listing:
    """A product in a shop. A detailed title names colour and pattern, a plain one neither."""

    look: Look
    title: str
    detailed: bool


def new_listing(rng: Random, look: Look, *, detailed: bool, named: bool = True, hinted: bool = False) -> Listing:
    """List a product under a new title.

    Args:
        rng: source of randomness.
        look: the product.
        detailed: whether the title names colour and pattern.
        named: whether the title has the category noun.
        hinted: whether the title describes the product's use.
    """
    words = [look.brand] if look.brand and rng.random() < 0.7 else []
    words.append(rng.choice(ADJECTIVES))
    if detailed:
        words += [look.colour, look.pattern]
    words.append(look.category if named else "item")
    if hinted:
        words.append(USES[look.category])
    words.append(str(rng.randint(100, 999)))
    return Listing(look=look, title=" ".join(words), detailed=detailed)
