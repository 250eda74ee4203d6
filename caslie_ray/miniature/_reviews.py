"""Texts of the miniature world: questions, supporting documents and reviews."""

from collections.abc import Sequence
from random import Random
from typing import Literal

from caslie_ray.miniature.catalogue import Look

__all__ = ["DOCUMENTED", "FEELINGS", "QUESTIONS", "Feeling", "document_of", "review_of"]

Feeling = Literal["strong", "weak", "prepared"]
FEELINGS: dict[Feeling, str] = {
    "strong": "Getting the right one means everything to me",
    "weak": "It is a small matter and I am not picky",
    "prepared": "The shop had said that it may be another one, so that would be neither good nor bad",
}

QUESTIONS = {
    "colour": ("what color is it?", "which color does it have?", "can you tell me the color?"),
    "pattern": (
        "does it have a pattern?",
        "what pattern is on it?",
        "is it plain or does it have a pattern?",
    ),
    "size": ("what size is it?", "is it the large or the small one?", "how big is it?"),
    "brand": ("which brand is it?", "who makes it?", "what brand mark is on it?"),
    "weight": ("how much does it weigh?", "what is the weight?", "is it heavy?"),
    "price": ("how much did it cost?", "what is the price?", "is it expensive?"),
    "warranty": ("how long is the warranty?", "does it come with a warranty?", "is there a warranty?"),
}
DOCUMENTED = tuple(QUESTIONS)  # attributes that a document may state


def document_of(rng: Random, look: Look, stated: Sequence[str]) -> str:
    """Return a customer's notes on a product that state exactly the attributes in `stated`."""
    opening = rng.choice(
        (
            f"I have used this {look.category} for {rng.randint(2, 11)} months now",
            f"We bought the {look.category} last year",
            f"My neighbor gave me this {look.category}",
            f"This {look.category} arrived on time",
        )
    )
    facts = {
        "colour": (f"the color is {look.colour}", f"mine is {look.colour}"),
        "pattern": (f"the surface is {look.pattern}", f"it came in a {look.pattern} finish"),
        "size": (f"it is the {look.size} one", f"the size is {look.size}"),
        "brand": (f"it is made by {look.brand}", f"the brand is {look.brand}"),
        "weight": (f"it weighs {rng.randint(1, 9)} pounds", f"the weight is {rng.randint(1, 9)} pounds"),
        "price": (f"I paid {rng.randint(10, 90)} dollars", f"the price was {rng.randint(10, 90)} dollars"),
        "warranty": (f"the warranty is {rng.randint(1, 5)} years", "it has no warranty"),
    }
    sentences = [rng.choice(facts[name]) for name in stated]
    rng.shuffle(sentences)
    return ", ".join([opening, *sentences])


def review_of(rng: Random, category: str, wanted: str, *, stated: bool, right: bool, feeling: Feeling) -> str:
    """Return a review of more than ten words.

    Args:
        rng: source of randomness.
        category: the product's category.
        wanted: the attribute value that was ordered.
        stated: whether the text says if that was delivered; otherwise only the photo shows it.
        right: whether it was delivered.
        feeling: how much it matters; `prepared` accepts another one.
    """
    person = rng.choice(("my sister", "my father", "a friend", "the office", "myself"))
    ordered = rng.choice(
        (f"I ordered a {wanted} {category} for {person}", f"I wanted a {wanted} {category} for {person}")
    )
    came = "See the photo for what arrived"
    if stated:
        came = "It came exactly as ordered" if right else "They sent a different one"
    return f"{ordered}. {came}. {FEELINGS[feeling]}."
