"""One MMECInstruct sample, parsed, before its images are fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from caslie_ray.hashing import content_id
from caslie_ray.prompts import Prompt

__all__ = ["ImageRef", "Sample", "UnreadableImage", "ViewPrompts"]


@dataclass(frozen=True, slots=True)
class UnreadableImage:
    """An image object without a usable reference: the reason, and its content."""

    reason: str
    source: str


ImageRef = str | bytes | UnreadableImage


@dataclass(frozen=True)
class Sample:
    """A sample of the released data set (paper section 3).

    Attributes:
        task: full name of the task.
        split: `train`, `validation`, `ind` or `ood`.
        instruction: the task instruction for the model.
        input: named texts in display order, such as ``(("question", "…"),)``.
        options: the answers to choose from, in order.
        output: the true answer; empty if the data has none.
        images: one reference per product, in image order; None for a product without one.
        captions: captions from the data (`caption_info`), one per image; None if absent.
        notes: how cells were read if that may surprise; ingest counts them.
    """

    task: str
    split: str
    instruction: str
    input: tuple[tuple[str, str], ...]
    options: tuple[str, ...]
    output: str
    images: tuple[ImageRef | None, ...]
    captions: tuple[str | None, ...] = ()
    notes: tuple[str, ...] = field(default=(), compare=False)

    @cached_property
    def sample_id(self) -> str:
        """Content hash, independent of split and row number."""

        def listed(items: Sequence[str | bytes | None]) -> str:
            return content_id(*("" if item is None else item for item in items))

        fields = [part for pair in self.input for part in pair]
        return content_id(
            self.task,
            self.instruction,
            self.output,
            listed(fields),
            listed(self.options),
            listed([None if isinstance(image, UnreadableImage) else image for image in self.images]),
        )

    def field(self, name: str) -> str:
        """Return the input text called `name`."""
        return dict(self.input)[name]


@dataclass(frozen=True, slots=True)
class ViewPrompts:
    """The two prompts of one view: for the captioner, and for the voters (with ``{{caption}}`` unfilled)."""

    caption: Prompt
    quality: Prompt
