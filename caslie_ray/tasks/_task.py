"""What every task has in common; what differs stands in the task's own file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from caslie_ray.prompts import Prompt, join, render
from caslie_ray.tasks._answers import label_of, read_answer, strip_mark
from caslie_ray.tasks._checks import check_definition
from caslie_ray.tasks._metrics import Metrics
from caslie_ray.tasks._parsing import RowError, as_text, decoded, is_missing, read_split, text_list
from caslie_ray.tasks._sample import ImageRef, Sample, ViewPrompts

__all__ = ["InputField", "Task"]


@dataclass(frozen=True)
class InputField:
    """One named text of a task's input.

    Attributes:
        name: its name in the `samples` table.
        aliases: other spellings of its key, in lower case.
        required: whether a sample without it is refused.
    """

    name: str
    aliases: tuple[str, ...] = ()
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task: its input, prompts (paper Appendix B), options, answers and metrics.

    Attributes:
        name: full name, as in the data's column `task`.
        code: short name, for columns of tables; the data may have it in place of `name`.
        instruction: the task instruction that uniM³ is given.
        caption_template: the captioning instruction; its slots are the names that `slots` gives.
        quality_template: the caption quality evaluation instruction, with ``{{caption}}`` besides.
        inputs: the fields of the input.
        labels: the possible answers, the positive one first; empty where each sample has its own options.
        cues: the phrases by which an option's wording gives away its label.
        shows_options: whether the options are written out in the prompt.
        metrics: how answers are measured.

    Raises:
        ValueError: the definition contradicts itself; better now than after its captions were paid for.
    """

    name: str
    code: str
    instruction: str
    caption_template: str
    quality_template: str
    inputs: tuple[InputField, ...]
    metrics: Metrics
    labels: tuple[str, ...] = ()
    cues: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shows_options: bool = True

    def __post_init__(self) -> None:
        plain = type(self).slots is Task.slots
        check_definition(self, [item.name.replace(" ", "_") for item in self.inputs] if plain else None)

    def parse(self, record: Mapping[str, object]) -> Sample:
        """Read a record of the released format.

        Args:
            record: the keys `split`, `instruction`, `input`, `options`, `output`, `images`, `caption_info`.

        Raises:
            RowError: a field is missing or of a form that cannot be read.
        """
        split = read_split(record.get("split"))
        pairs = self.read_input(decoded(record.get("input")))
        options = tuple(text_list(record.get("options"))) or self.labels
        if not options:
            raise RowError("options are missing: give a JSON list of the answers to choose from")
        if not all(map(strip_mark, options)):
            raise RowError("an option is empty: remove it or fill it in")
        output = as_text(record.get("output"))
        if not output:
            raise RowError("output is missing: give the true answer")
        count = self.image_count(pairs, options)
        images = _references(record.get("images"), count)
        told = decoded(record.get("caption_info"))
        # Plain text is one caption, whatever line breaks it holds.
        given = [text or None for text in ([as_text(told)] if isinstance(told, str) else text_list(told))]
        captions = tuple((given + [None] * count)[:count]) if given else ()
        instruction = as_text(record.get("instruction")) or self.instruction
        return Sample(self.name, split, instruction, pairs, options, output, images, captions)

    def read_input(self, value: object) -> tuple[tuple[str, str], ...]:
        """Read the `input` cell: a mapping, or plain text where the task has one required field.

        Raises:
            RowError: a required field is missing or empty.
        """
        required = [item.name for item in self.inputs if item.required]
        if not isinstance(value, Mapping):
            if is_missing(value):
                raise RowError("input is missing")
            if len(required) != 1:
                raise RowError(f"input is no mapping: give a JSON object with {', '.join(required)}")
            value = {required[0]: value}
        cells = {str(key).strip().lower().replace("_", " "): cell for key, cell in value.items()}
        pairs: list[tuple[str, str]] = []
        for item in self.inputs:
            key = next((key for key in (item.name, *item.aliases) if key in cells), None)
            text = as_text(cells.pop(key)) if key is not None else ""
            if not text and not item.required:
                # A field whose key the data never agreed on: the first text that nothing else claims.
                claimed = {key for other in self.inputs for key in (other.name, *other.aliases)}
                spare = next((key for key in cells if key not in claimed and not is_missing(cells[key])), None)
                text = as_text(cells.pop(spare)) if spare is not None else ""
            if not text and item.required:
                state = "missing" if key is None else "empty"
                raise RowError(f"input field {item.name!r} is {state}: give its text")
            pairs.append((item.name, text))
        return tuple(pairs)

    def image_count(self, pairs: Sequence[tuple[str, str]], options: Sequence[str]) -> int:
        """Return how many images, and so views, a sample has."""
        return 1

    def slots(self, sample: Sample) -> list[dict[str, str]]:
        """Return, for each image in order, the values of the templates' slots."""
        return [{name.replace(" ", "_"): text for name, text in sample.input}]

    def view_prompts(self, sample: Sample) -> list[ViewPrompts]:
        """Return the two prompts of each view of the sample, in image order."""
        return [
            ViewPrompts(render(self.caption_template, **values), render(self.quality_template, **values))
            for values in self.slots(sample)
        ]

    def prompt(self, sample: Sample, captions: Sequence[str | None]) -> Prompt:
        """Write the turn that uniM³ answers (paper 4.3): instruction, input, captions and options.

        Args:
            sample: the sample.
            captions: one an image, in image order; None where no caption is used, which leaves no trace.
        """
        count = self.image_count(sample.input, sample.options)
        used = list(captions) + [None] * (count - len(captions))
        lines = [Prompt(sample.instruction), *self.body(sample, used)]
        if self.shows_options:
            lines += [Prompt("options:"), *self.option_lines(sample, used)]
        return join(lines, "\n")

    def body(self, sample: Sample, captions: Sequence[str | None]) -> list[Prompt]:
        """Return the lines between the instruction and the options."""
        lines = [render(f"{name}: {{{{text}}}}", text=text) for name, text in sample.input if text]
        return lines + caption_line("information from the product image", captions[0])

    def option_lines(self, sample: Sample, captions: Sequence[str | None]) -> list[Prompt]:
        """Return the lines that list the options."""
        return [Prompt(option) for option in sample.options]

    def read_answer(self, text: str, options: Sequence[str]) -> str | None:
        """Return the option that a model's text chooses, or None (a failure)."""
        return read_answer(text, options, self.cues)

    def label(self, option: str) -> str:
        """Return the label that an option stands for; the option itself where the task has no labels."""
        return label_of(option, self.cues) or option

    def true_label(self, output: str, options: Sequence[str]) -> str | None:
        """Return the label of a sample's true answer; its option where the task has no labels.

        None where it is none of the options, or an option that stands for no label: no answer could be right.
        """
        option = self.read_answer(output, options or self.labels)
        if option is None:
            return None
        if not self.labels:
            return option
        label = self.label(option)
        return label if label in self.labels else None


def caption_line(name: str, caption: str | None) -> list[Prompt]:
    """Return the line of a caption that is used, with the caption's span, and nothing for one that is not used."""
    text = (caption or "").strip()
    if not text:
        return []
    line = f"{name}: {text}"
    return [Prompt(line, captions=((len(line) - len(text), len(line)),))]


def _references(value: object, count: int) -> tuple[ImageRef | None, ...]:
    value = decoded(value)
    items: list[object] = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(items) > count:
        raise RowError(f"{len(items)} images for {count} product(s): give one image a product, in order")
    references: list[ImageRef | None] = []
    for item in items:
        if isinstance(item, Mapping):
            item = item.get("bytes") or item.get("path") or item.get("url")
        if isinstance(item, (bytes, bytearray)):
            references.append(bytes(item) or None)
        else:
            references.append(as_text(item) or None)
    return tuple(references + [None] * (count - len(references)))
