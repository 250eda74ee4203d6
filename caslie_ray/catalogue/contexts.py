"""Contexts: what the captions of a catalogue's images are written for, as prompts over the columns of its products."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from caslie_ray.profiles import ContextSettings, ProfileError
from caslie_ray.prompts import CAPTION, render
from caslie_ray.tasks import TASKS, ViewPrompts

__all__ = ["BUILT_IN", "Context", "contexts_of"]

_SLOT = re.compile(r"\{\{(\w+)\}\}")
_OPTIONAL = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)
_MARK = "{{" + CAPTION + "}}"
_TEXTS = "[[ Title: {{title}}.]][[ Category: {{category}}.]][[ Brand: {{brand}}.]][[ Description: {{description}}.]]"
_ADDED = " Here is the additional information about the product that was extracted from the product image: {{caption}}."

BUILT_IN: Mapping[str, ContextSettings] = {
    "product": ContextSettings(
        caption="Please generate an informative caption for the product in the image. This is the shop's listing of the"
        f" product.{_TEXTS} The caption should describe what the image shows of the product and the listing lacks, such"
        " as colour, pattern, material, shape and parts.",
        quality=f"The task needs to complete a shop's listing of a product.{_TEXTS}{_ADDED} You need to determine if"
        " this information adds to the listing what its text lacks, and contradicts none of it. Only output yes or no.",
    ),
    "alt_text": ContextSettings(
        caption="Please generate the alternative text of the product image for screen readers: one sentence of at most"
        " 125 characters that describes what the image shows.[[ The product is: {{title}}.]]",
        quality="The task needs to describe a product image to people who cannot see it, in one short sentence."
        f"[[ The product is: {{{{title}}}}.]]{_ADDED} You need to determine if this information describes the product"
        " and contradicts none of its texts. Only output yes or no.",
    ),
    "search": ContextSettings(
        caption="Please generate an informative caption for the product in the image.[[ Here is the product title:"
        " {{title}}.]] The caption should be helpful to determine if the product satisfies the query: {{query}}.",
        quality="The task needs to determine if a product satisfies the query: {{query}}.[[ Here is the product title:"
        f" {{{{title}}}}.]]{_ADDED} You need to determine if this information will be helpful to determine if the"
        " product satisfies the query. Only output yes or no.",
    ),
}
"""Contexts that have prompts already. They are modelled on the paper's (B.2 to B.8), which has none for a listing."""


@dataclass(frozen=True)
class Context:
    """A context.

    Attributes:
        name: its name, in the column `task` of `views`.
        caption_template: the prompt of the captioner. ``{{column}}`` is the text of a column. A part in double
            brackets is left out if a column in it is empty.
        quality_template: the prompt of the voters, with ``{{caption}}``.
        most_images: how many images of a product are captioned; None for all.
    """

    name: str
    caption_template: str
    quality_template: str
    most_images: int | None

    @property
    def required(self) -> list[str]:
        """The columns that a catalogue must have, in order: those outside of double brackets."""
        both = _OPTIONAL.sub("", self.caption_template + self.quality_template)
        return [name for name in dict.fromkeys(_SLOT.findall(both)) if name != CAPTION]

    def missing(self, columns: Collection[str]) -> str | None:
        """Return why a catalogue with these columns cannot be captioned for this context; None if it can."""
        missing = [name for name in self.required if name not in columns]
        if not missing:
            return None
        return (
            f"missing column of a context: {self.name} needs {', '.join(missing)}; there are {', '.join(columns)}: name"
            f" one of these in contexts.{self.name}, or give it that name with ingest.keys.fields"
        )

    def prompts(self, texts: Mapping[str, str]) -> ViewPrompts:
        """Return the prompts of a view of a product with these texts by column."""
        used = dict.fromkeys(_SLOT.findall(self.caption_template + self.quality_template))
        values = {name: texts.get(name, "") for name in used if name != CAPTION}

        def kept(part: re.Match[str]) -> str:
            return part[1] if all(values.get(name) for name in _SLOT.findall(part[1])) else ""

        caption, quality = (_OPTIONAL.sub(kept, one) for one in (self.caption_template, self.quality_template))
        return ViewPrompts(render(caption, **values), render(quality, **values))


def contexts_of(settings: Mapping[str, ContextSettings]) -> tuple[Context, ...]:
    """Return the contexts of a profile; `product` if it has none.

    Raises:
        ProfileError: a context has no prompt, or one that cannot be used.
    """
    return tuple(_context(name, given) for name, given in (settings or {"product": ContextSettings()}).items())


def _context(name: str, given: ContextSettings) -> Context:
    def refuse(why: str) -> ProfileError:
        return ProfileError(f"contexts.{name}: {why}")

    if not re.fullmatch(r"[\w-]+", name) or name in {key for task in TASKS.values() for key in (task.name, task.code)}:
        raise refuse("use letters, digits, hyphens and underscores, and not the name of a task")
    known = BUILT_IN.get(name)
    caption = given.caption or (known.caption if known else None)
    quality = given.quality or (known.quality if known else None)
    if caption is None or quality is None:
        raise refuse(f"give the prompts caption and quality; only {', '.join(BUILT_IN)} have prompts already")
    if quality.count(_MARK) != 1 or _MARK in caption or _MARK in "".join(_OPTIONAL.findall(quality)):
        raise refuse(f"write {_MARK} once in quality, outside of double brackets, and not in caption")
    return Context(name, caption, quality, given.most_images)
