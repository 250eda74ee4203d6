"""Reads the output of a record as one of its options."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from caslie_ray.tasks._answer_reading import strip_mark
from caslie_ray.tasks._errors import RowError
from caslie_ray.tasks._options import MARK, SHOWN, Options, yes_or_no
from caslie_ray.tasks._parsing import as_text, decoded

__all__ = ["Output", "read_output"]

_NEGATION = re.compile(r"(?<!\w)(?:not|no|non|never|neither|nor|without|cannot|\w+n['’]t)(?!\w)", re.IGNORECASE)
_SPELLED = "outputs in another spelling read as their option"


@dataclass(frozen=True, slots=True)
class Output:
    """The true answer of one record.

    Attributes:
        text: the answer as in the source if it reads as an option, otherwise the option that it means.
        note: how it was read, if that is worth counting, otherwise None.
    """

    text: str
    note: str | None = None


def read_output(
    value: object,
    options: Options,
    labels: Sequence[str],
    read_answer: Callable[[str, Sequence[str]], str | None],
    label_of: Callable[[str], str],
) -> Output:
    """Read the `output` cell as one of the options.

    Args:
        value: the cell.
        options: the record's options.
        labels: the labels of the task.
        read_answer: returns the option that a text chooses, the same function as for a model's answer.
        label_of: returns the label of an option.

    Raises:
        RowError: it is missing, none of the options, or several of them.
    """
    text = as_text(value)
    if not text:
        raise RowError("output is missing: give the true answer")
    exact = text in options.texts
    # An option may look like JSON or a Python literal: `"quoted"`, `(5, 4)`.
    readable = exact or read_answer(text, options.texts) is not None
    text = text if readable else as_text(decoded(text))
    named = _by_name(text, options)
    if exact:
        return Output(text)
    if named is not None and not named.startswith(f"{text.upper()}: "):
        return Output(named)
    if named is not None:
        return Output(text)
    read = read_answer(text, options.texts) if text else None
    spelled = _respelled(text)
    respelled = read_answer(spelled, options.texts)
    if respelled is not None and spelled in (_respelled(strip_mark(respelled)), _respelled(label_of(respelled))):
        # `VERY-POSITIVE` is not the option `positive`, although its last word is.
        return Output(text) if read == respelled else Output(respelled, _SPELLED)
    answers = {_respelled(name) for option in options.texts for name in (label_of(option), strip_mark(option))}
    label = read_answer(spelled, labels) if labels else None
    other = label is not None and _respelled(label) not in answers
    if read is not None and not other and not _negated(text, read, options.texts, read_answer):
        return Output(text)
    truth = yes_or_no(text)
    by_truth = {strip_mark(option).strip(" .").casefold(): option for option in options.texts}
    if truth is not None and by_truth.keys() == {"yes", "no"}:
        return Output(by_truth[truth], "outputs of true/false, 1/0 or Y/N read as yes/no")
    shown = ", ".join(options.texts)
    shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "…"
    hint = " (whether counting starts at 0 or 1 is not known)" if re.fullmatch(r"\d{1,2}(\.0)?", text) else ""
    hint = hint if len(options.texts) > 1 else " (this is one option; give several as a JSON list)"
    raise RowError(f"output {text[:80]!r} is none of the options: {shown}{hint}; give one of them")


def _respelled(text: str) -> str:
    """Return a text in lower case with its words separated: ``very_positive`` and ``VeryPositive`` are two words."""
    return " ".join(re.sub(r"[\s_-]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)).split()).casefold()


def _negated(
    text: str, read: str, options: Sequence[str], read_answer: Callable[[str, Sequence[str]], str | None]
) -> bool:
    """Return whether a negation precedes the words by which `text` reads as the option `read`: ``not positive``."""
    match = _NEGATION.search(text)
    if match is None:
        return False
    mark = MARK.match(text)
    before = text[mark.end() if mark else 0 : match.end()]
    if before and _respelled(strip_mark(read)).startswith(_respelled(before)):
        return False  # the option's own words
    return read_answer(text[match.end() :], options) == read


def _by_name(text: str, options: Options) -> str | None:
    """Return the option named `text` in the source; None if there is none, or another option reads `text`.

    Raises:
        RowError: several options have this name.
    """
    key = _number(text)
    hits = [
        option
        for option, names in zip(options.texts, options.names, strict=True)
        if key in {_number(name) for name in names}
    ]
    same = [option for option in options.texts if strip_mark(option).casefold() == text.casefold()]
    together = list(dict.fromkeys([*hits, *same]))
    if hits and len(together) > 1:
        raise RowError(f"output {text[:80]!r} names several options: {', '.join(together)[:SHOWN]}; give one text")
    return hits[0] if hits else None


def _number(name: str) -> str:
    """Normalize a name: ``1.0`` and ``1`` are equal, and so are ``a`` and ``A``."""
    plain = name.strip().casefold()
    return plain[:-2] if re.fullmatch(r"\d+\.0", plain) else plain
