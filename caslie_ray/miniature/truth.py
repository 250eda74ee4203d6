"""Ground truth of views: perfect captions, and whether a caption helps."""

import re
from dataclasses import dataclass
from typing import Literal

from caslie_ray.miniature.catalogue import VALUES, Look
from caslie_ray.miniature.drawing import Picture

__all__ = [
    "CONTEXT_FREE",
    "Usefulness",
    "ViewTruth",
    "caption_of",
    "context_free_caption",
    "helps",
    "named_in",
]

Usefulness = Literal["useful", "useless", "misleading"]

CONTEXT_FREE = "Please generate an informative caption for the product in the image."
_PLACEHOLDER = "No product can be seen, the image is only a placeholder."
_BLURRED = "No product can be seen, the image is too blurred."


@dataclass(frozen=True, slots=True)
class ViewTruth:
    """The ground truth of one view: one image of one sample.

    Attributes:
        picture: the image.
        asks: the attributes that the context asks for, possibly one that no drawing shows (`weight`).
        lacks: those of them that the text does not state and the answer needs.
        manner: the phrasing of captions in the sample's context, see `phrase`.
    """

    picture: Picture
    asks: tuple[str, ...]
    lacks: tuple[str, ...]
    manner: str

    @property
    def usefulness(self) -> Usefulness:
        """Whether a correct caption of the image is `useful`, `useless` or `misleading`."""
        if self.picture.kind == "wrong":
            return "misleading"
        return "useful" if self.picture.kind == "informative" and self.lacks else "useless"


def caption_of(view: ViewTruth) -> str:
    """Return a perfect captioner's caption: what the image shows, depending on the context."""
    shown = view.picture.shown
    if shown is None:
        return _PLACEHOLDER if view.picture.kind == "placeholder" else _BLURRED
    return phrase(shown, view.manner)


def phrase(look: Look, manner: str) -> str:
    """Return a caption of a look.

    Args:
        look: what the image shows.
        manner: `category`, `colour`, `both` (colour and pattern), `photo` (both, in a review's photo), or
            `question:NAME` for one attribute.
    """
    if manner.startswith("question:"):
        asked = manner.removeprefix("question:")
        if asked not in VALUES or not look.value(asked):
            return f"The image shows a {look.category}. {_unseen(asked)}"
        spoken = {"colour": "color"}.get(asked, asked)
        return f"The image shows a {look.category}. Its {spoken} is {look.value(asked)}."
    article = "an" if look.colour.startswith("o") else "a"
    if manner == "category":
        return f"The product in the image is a {look.category}."
    if manner == "colour":
        return f"The image shows {article} {look.colour} {look.category}."
    subject = "photo" if manner == "photo" else "image"
    return f"The {subject} shows {article} {look.colour} {look.pattern} {look.category}."


def _unseen(name: str) -> str:
    return f"Its {name} cannot be seen."


def context_free_caption(view: ViewTruth) -> str:
    """Return a perfect captioner's caption without a context: size and colour. As long as most captions with one."""
    shown = view.picture.shown
    if shown is None:
        return caption_of(view)
    return f"The image shows a {shown.size} {shown.colour} {shown.category}."


_WORDS = {value: name for name, values in VALUES.items() for value in values}
_WORD = re.compile(r"[A-Za-z]+")


def named_in(text: str) -> dict[str, str]:
    """Return the first value of each attribute that a text names."""
    values: dict[str, str] = {}
    for word in _WORD.findall(text):
        name = _WORDS.get(word)
        if name and name not in values:
            values[name] = word
    return values


def helps(caption: str, view: ViewTruth) -> bool:
    """Return whether a caption helps: it describes the true product and correctly names what the text lacks.

    For a brand mark that the product does not have, it says that none can be seen.
    """
    named = named_in(caption)
    product = view.picture.product
    if named.get("category") != product.category:
        return False
    right = [
        named.get(name, "") == product.value(name)
        for name in view.lacks
        if name in named or (not product.value(name) and _unseen(name) in caption)
    ]
    return bool(right) and all(right)
