"""The base class of tasks; each task has a module of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from caslie_ray.prompts import Prompt, join, one_line, render
from caslie_ray.tasks._answer_reading import label_of, read_answer, strip_mark
from caslie_ray.tasks._cells import OBJECT
from caslie_ray.tasks._definition_checks import check_definition
from caslie_ray.tasks._errors import OptionsError
from caslie_ray.tasks._image_references import read_references
from caslie_ray.tasks._options import Options, read_options
from caslie_ray.tasks._output import read_output
from caslie_ray.tasks._parsing import SPLITS, RowError, as_text, is_missing, read_split, structured, text_list
from caslie_ray.tasks._sample import Sample, ViewPrompts
from caslie_ray.tasks.metrics import Metrics

__all__ = ["InputField", "Task"]

_NO_CAPTION = frozenset({"na", "n/a", "#n/a", "<na>", "nan", "none", "null"})
"""Placeholders for a missing caption; the authors' code writes NA if an image could not be loaded."""

_BROKEN_CAPTIONS = re.compile(r"""[\[{]\s*[bBuU]?['"]""")


@dataclass(frozen=True)
class InputField:
    """One named text of a task's input.

    Attributes:
        name: its name in the `samples` table.
        aliases: other spellings of its key, in lower case.
        required: whether a sample without it is rejected.
    """

    name: str
    aliases: tuple[str, ...] = ()
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task: its input, prompts (paper Appendix B), options, answers and metrics.

    Attributes:
        name: full name, as in the data's column `task`.
        code: short name, for columns of tables; the data may use it instead of `name`.
        instruction: the task instruction for uniM³.
        caption_template: the captioning instruction; its slots are the keys of `slots`.
        quality_template: the caption quality evaluation instruction, with ``{{caption}}`` as an additional slot.
        inputs: the fields of the input.
        labels: the possible answers, the positive one first; empty if each sample has its own options.
        cues: for each label, the phrases that identify it in an option's wording.
        shows_options: whether the prompt lists the options.
        metrics: the metrics of answers.
        broken_input: matches the start of an input that is not plain text, and so must be decodable.

    Raises:
        ValueError: the definition is inconsistent.
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
    broken_input: ClassVar[re.Pattern[str]] = OBJECT

    def __post_init__(self) -> None:
        plain = type(self).slots is Task.slots
        check_definition(self, [item.name.replace(" ", "_") for item in self.inputs] if plain else None)

    def parse(self, record: Mapping[str, object]) -> Sample:
        """Read a record of the released format. One without `output` is captioned, and neither trained on nor measured;
        without `split` as well, it is of `train`.

        Args:
            record: the keys `split`, `instruction`, `input`, `options`, `output`, `images`, `caption_info`.

        Raises:
            RowError: a field is missing or cannot be read.
        """
        unlabelled = is_missing(record.get("output"))
        split = SPLITS[0] if unlabelled and is_missing(record.get("split")) else read_split(record.get("split"))
        notes: list[str] = []
        pairs, options = self._read_question(record, notes)
        output = "" if unlabelled else self._read_output(record, options, notes)
        count = self.image_count(pairs, options.texts)
        images = read_references(record.get("images"), count)
        captions = _captions(record.get("caption_info"), count, notes)
        instruction = as_text(record.get("instruction")) or self.instruction
        return Sample(
            self.name,
            split,
            instruction,
            pairs,
            options.texts,
            output,
            images,
            captions,
            tuple(dict.fromkeys(notes)),
        )

    def _read_output(self, record: Mapping[str, object], options: Options, notes: list[str]) -> str:
        """Return the true answer.

        Raises:
            RowError: it is none of the options, or has no label.
        """
        output = read_output(record.get("output"), options, self.labels, self.read_answer, self.label)
        if self.true_label(output.text, options.texts) is None:
            raise RowError(
                f"the true option {output.text[:80]!r} matches no label of {self.code}: word the options as its"
                f" labels, {', '.join(self.labels)}"
            )
        notes += [output.note] if output.note else []
        return output.text

    def parse_question(self, record: Mapping[str, object]) -> Sample:
        """Read a question without its true answer, as it is asked online; `output`, `split` and `images` are empty.

        Args:
            record: the keys `input`, `options` and, if it differs from the task's, `instruction`.

        Raises:
            RowError: a field is missing or cannot be read.
        """
        pairs, options = self._read_question(record, [])
        return Sample(
            self.name, "", as_text(record.get("instruction")) or self.instruction, pairs, options.texts, "", ()
        )

    def _read_question(
        self, record: Mapping[str, object], notes: list[str]
    ) -> tuple[tuple[tuple[str, str], ...], Options]:
        """Return the named texts of the input, and the options.

        Raises:
            RowError: a field is missing or cannot be read.
        """
        pairs = self.read_input(self._input_cell(record, notes))
        try:
            options = read_options(record.get("options"), self.labels)
        except RowError as error:
            raise OptionsError(str(error)) from None
        if not options.texts:
            options = read_options(list(self.labels), self.labels)
        if not options.texts:
            raise OptionsError("options are missing: give a JSON list of the answers to choose from")
        if not all(map(strip_mark, options.texts)):
            raise OptionsError("an option is empty: remove it or fill it in")
        return pairs, options

    def input_names(self) -> tuple[str, ...]:
        """Return all names of the input's fields, in lower case."""
        return tuple(name for item in self.inputs for name in (item.name, *item.aliases))

    def _input_cell(self, record: Mapping[str, object], notes: list[str]) -> object:
        """Return the decoded input; if the record has no such column, the columns named like its fields.

        Raises:
            RowError: it is missing, or starts like an object and cannot be decoded.
        """
        names = self.input_names()
        cell = structured(record.get("input"), "input", self.broken_input)
        text = cell.lstrip() if isinstance(cell, str) else ""
        bare = re.match(r"\{\s*(\w[\w ]*?)\s*:", text)
        if bare and _field_name(bare[1]) in names:
            raise RowError(f"input cannot be decoded: {text[:60]!r} is no JSON; put its keys in double quotes")
        if not is_missing(cell):
            return cell
        others = record.get("other_columns")
        columns = dict(others) if isinstance(others, Mapping) else {}
        found = {key: columns[key] for key in columns if _field_name(key) in names}
        present = set(map(_field_name, found))
        complete = all(present & {item.name, *item.aliases} for item in self.inputs if item.required)
        if found and complete and "input" not in record:
            notes.append("inputs read from the row's own columns")
            return found
        if columns:
            shown = ", ".join(map(str, columns))[:200]
            raise RowError(f"input is missing: put its fields into an object `input`; other columns are {shown}")
        return cell

    def read_input(self, value: object) -> tuple[tuple[str, str], ...]:
        """Read the `input` cell: a mapping, or plain text if the task has one required field.

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
        cells = {_field_name(key): cell for key, cell in value.items()}
        pairs: list[tuple[str, str]] = []
        for item in self.inputs:
            key = next((key for key in (item.name, *item.aliases) if key in cells), None)
            text = as_text(cells.pop(key)) if key is not None else ""
            if not text and not item.required:
                # A field without an established key: the first text that no other field claims.
                claimed = {key for other in self.inputs for key in (other.name, *other.aliases)}
                spare = next((key for key in cells if key not in claimed and not is_missing(cells[key])), None)
                text = as_text(cells.pop(spare)) if spare is not None else ""
            if not text and item.required:
                state = "missing" if key is None else "empty"
                raise RowError(f"input field {item.name!r} is {state}: give its text")
            pairs.append((item.name, text))
        return tuple(pairs)

    def image_count(self, pairs: Sequence[tuple[str, str]], options: Sequence[str]) -> int:
        """Return the number of images, and so of views, of a sample."""
        return 1

    def slots(self, sample: Sample) -> list[dict[str, str]]:
        """Return the values of the templates' slots for each image, in order."""
        return [{name.replace(" ", "_"): text for name, text in sample.input}]

    def view_prompts(self, sample: Sample) -> list[ViewPrompts]:
        """Return the two prompts of each view of the sample, in image order."""
        return [
            ViewPrompts(render(self.caption_template, **values), render(self.quality_template, **values))
            for values in self.slots(sample)
        ]

    def prompt(self, sample: Sample, captions: Sequence[str | None]) -> Prompt:
        """Write the prompt of uniM³ (paper 4.3): instruction, input, captions and options.

        Each text and caption is written on one line, so that it cannot imitate another line of the prompt.

        Args:
            sample: the sample.
            captions: one per image, in image order; None omits its line.
        """
        count = self.image_count(sample.input, sample.options)
        used = list(captions) + [None] * (count - len(captions))
        lines = [Prompt(one_line(sample.instruction)), *self.body(sample, used)]
        if self.shows_options:
            lines += [Prompt("options:"), *self.option_lines(sample, used)]
        return join(lines, "\n")

    def body(self, sample: Sample, captions: Sequence[str | None]) -> list[Prompt]:
        """Return the lines between the instruction and the options."""
        lines = [render(f"{name}: {{{{text}}}}", text=text) for name, text in sample.input if text]
        return lines + caption_line("information from the product image", captions[0])

    def option_lines(self, sample: Sample, captions: Sequence[str | None]) -> list[Prompt]:
        """Return the lines that list the options."""
        return [Prompt(one_line(option)) for option in sample.options]

    def read_answer(self, text: str, options: Sequence[str]) -> str | None:
        """Return the option that a model's text chooses, or None (a failure)."""
        return read_answer(text, options, self.cues)

    def label(self, option: str) -> str:
        """Return the label of an option; the option itself if the task has no labels."""
        return label_of(option, self.cues) or option

    def true_label(self, output: str, options: Sequence[str]) -> str | None:
        """Return the label of a sample's true answer; its option if the task has no labels.

        None if it is none of the options, or an option without a label: then no answer could be correct.
        """
        option = self.read_answer(output, options or self.labels)
        if option is None:
            return None
        if not self.labels:
            return option
        label = self.label(option)
        return label if label in self.labels else None


def caption_line(name: str, caption: str | None) -> list[Prompt]:
    """Return the line of a caption, with the caption's span; nothing without a caption."""
    text = one_line((caption or "").strip())
    if not text:
        return []
    line = f"{name}: {text}"
    return [Prompt(line, captions=((len(line) - len(text), len(line)),))]


def _field_name(key: object) -> str:
    """Normalize a key of the input, to compare it with field names."""
    return str(key).strip().lower().replace("_", " ")


def _captions(value: object, count: int, notes: list[str]) -> tuple[str | None, ...]:
    """Return the captions in the data, one per image; empty without a readable cell."""
    try:
        cell = structured(value, "caption_info", _BROKEN_CAPTIONS)
    except RowError:
        notes.append("captions that cannot be decoded taken as missing")
        return ()
    # Plain text is one caption, even with line breaks.
    given = [as_text(cell)] if isinstance(cell, str) else text_list(cell)
    texts = [None if not text or text.casefold() in _NO_CAPTION else text for text in given]
    if any(text and not kept for text, kept in zip(given, texts, strict=True)):
        notes.append("captions of NA, nan, None or null taken as missing")
    return tuple((texts + [None] * count)[:count]) if given else ()
