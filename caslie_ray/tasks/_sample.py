"""One MMECInstruct sample, as it is after reading and before its images are fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from caslie_ray.hashing import content_id
from caslie_ray.prompts import Prompt

__all__ = ["ImageRef", "Sample", "UnreadableImage", "ViewPrompts"]


@dataclass(frozen=True, slots=True)
class UnreadableImage:
    """An image object in which no reference was found: why not, and what it holds."""

    reason: str
    source: str


ImageRef = str | bytes | UnreadableImage


@dataclass(frozen=True)
class Sample:
    """A sample of the released data set (paper section 3).

    Attributes:
        task: full name of the task.
        split: `train`, `validation`, `ind` or `ood`.
        instruction: what the model is told to do.
        input: named texts in the order in which they are shown, such as ``(("question", "…"),)``.
        options: the answers to choose from, in order; empty where the task has none of its own.
        output: the true answer.
        images: one reference a product, in image order; None where the record names none.
        captions: the captions that came with the data (`caption_info`), one an image; None where absent.
        notes: how cells were read whose reading may surprise; ingest counts them.
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
        """Hash of the content, without the split or the row number."""

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
