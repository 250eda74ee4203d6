"""Reads the options of a record in the forms in which data sets write them, and the output as one of them.

Letters are kept as the released data writes them, ``A: text``; any other name that the source gives an option
(a number, a code) is understood in the output, and replaced there by the option's text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caslie_ray.tasks._answer_reading import strip_mark
from caslie_ray.tasks._errors import RowError
from caslie_ray.tasks._parsing import as_text, decoded, is_missing, structured, text_list

__all__ = ["Options", "Output", "read_options", "read_output"]

_TEXT_KEYS = ("title", "text", "texts", "value", "values", "option", "options", "choice", "choices", "content", "name",
              "answer")  # fmt: skip
_LABEL_KEYS = ("label", "labels", "letter", "letters", "id", "ids", "key", "keys", "index", "idx")
_MARK = re.compile(r"\s*[(\[]?([A-Za-z]|\d{1,2})(?:[)\]]\s*[.:]?|[.:]|\s+[-–]\s)\s*(?=\S)")
_FLAGS = frozenset({"correct", "iscorrect", "isanswer", "isright", "right", "gold", "isgold", "truth", "istrue"})
_NEGATION = re.compile(r"(?<!\w)(?:not|no|non|never|neither|nor|without|cannot|\w+n['’]t)(?!\w)", re.IGNORECASE)
_YES = frozenset({"yes", "true", "t", "y", "1", "1.0"})
_NO = frozenset({"no", "false", "f", "n", "0", "0.0"})
_SPELLED = "outputs in another spelling read as their option"
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one record.

    Attributes:
        texts: as they are stored and shown, in order.
        names: for each option, what else the source calls it: its letter, number or code, or the text as written.
    """

    texts: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Output:
    """The true answer of one record.

    Attributes:
        text: the answer, as the source writes it where it reads as an option, else the option that it stands for.
        note: how it was read, where that is worth counting; None otherwise.
    """

    text: str
    note: str | None = None


def read_options(value: object, labels: Sequence[str]) -> Options:
    """Read the `options` cell.

    Args:
        value: a list of texts, of mappings or of pairs; a mapping of letters to texts, or of lists; or plain text, an
            option per line.
        labels: the labels of the task. Where they are yes and no, options of true and false, or 1 and 0, are too.

    Raises:
        RowError: the cell cannot be read.
    """
    cell = structured(value, "options")
    named = _named(cell)
    if named is not None:
        return _options(named, [text for _, text in named], labels)
    written = text_list([_text(item) for item in cell] if isinstance(cell, (list, tuple)) else cell)
    marks = _marks(written)
    # Letters that answers are read by already are kept as they are, and so are numbers.
    if marks is None or all(strip_mark(text) != text for text in written):
        return _options([("", text) for text in written], written, labels)
    if marks[0][0].isdigit():
        marks = [(mark, text) for (mark, _), text in zip(marks, written, strict=True)]
    return _options(marks, written, labels)


def _options(named: Sequence[tuple[str, str]], written: Sequence[str], labels: Sequence[str]) -> Options:
    texts = [text for _, text in named]
    if named[:1] and named[0][0].isalpha() and _in_order([label for label, _ in named]):
        texts = [_lettered(label.strip().upper(), text) for label, text in named]
    if {*labels} == {"yes", "no"}:
        texts = _yes_no(texts)
    names = [
        tuple(name for name in dict.fromkeys((label, source)) if name and name != text)
        for (label, _), source, text in zip(named, written, texts, strict=True)
    ]
    return Options(tuple(texts), tuple(names))


def _lettered(letter: str, text: str) -> str:
    own = _MARK.match(text)
    return f"{letter}: {text[own.end() :] if own and own[1].upper() == letter else text}"


def _yes_no(texts: Sequence[str]) -> list[str]:
    """Write yes and no for two options that say true and false in another way."""
    bare = [strip_mark(text) for text in texts]
    read = [_truth(text) for text in bare]
    if {*read} != {"yes", "no"} or len(read) != 2 or {text.strip(" .").lower() for text in bare} == {"yes", "no"}:
        return list(texts)
    return [text[: len(text) - len(one)] + str(word) for text, one, word in zip(texts, bare, read, strict=True)]


def _truth(text: str) -> str | None:
    word = text.strip(" .\"'").casefold()
    return "yes" if word in _YES else "no" if word in _NO else None


def _named(value: object) -> list[tuple[str, str]] | None:
    """Return (label, text) of each option where the source names its options; None where it does not."""
    if isinstance(value, Mapping):
        return _of_mapping(value)
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes, bytearray)) or not value:
        return None
    items = [decoded(item) if isinstance(item, str) and item.lstrip()[:1] == "{" else item for item in value]
    if all(isinstance(item, Mapping) for item in items):
        return _of_items([item for item in items if isinstance(item, Mapping)])
    pairs = [item for item in items if isinstance(item, (list, tuple)) and len(item) == 2]
    if len(pairs) == len(items) and _in_order([as_text(pair[0]) for pair in pairs]):
        return [(as_text(label), _text(text)) for label, text in pairs]
    return None


def _of_mapping(value: Mapping[Any, Any]) -> list[tuple[str, str]] | None:
    cells = {str(key).strip().lower(): cell for key, cell in value.items()}
    lists = {key: cell for key, cell in cells.items() if isinstance(cell, (list, tuple))}
    if any(len(cell) > 1 for cell in lists.values()):
        text_key, label_key = _keys_of(lists)
        if len(lists) == len(cells) == 1:
            text_key = next(iter(lists))
        if text_key is None:
            found = ", ".join(map(str, value))[:_SHOWN]
            raise RowError(
                f"options cannot be read: an object of lists with the keys {found}; give a JSON list of texts"
            )
        texts = [as_text(item) for item in lists[text_key]]
        labels = [as_text(item) for item in lists[label_key]] if label_key else [""] * len(texts)
        if len(labels) != len(texts):
            raise RowError(f"options have {len(labels)} labels for {len(texts)} texts: give one label per text")
        return _swapped(labels, texts)
    # A Parquet struct has every key that any row has; those of other rows are null.
    pairs = [(as_text(key), _text(cell)) for key, cell in value.items() if not is_missing(cell)]
    return pairs or None


def _of_items(items: Sequence[Mapping[Any, Any]]) -> list[tuple[str, str]] | None:
    if all(len(item) == 1 for item in items):
        pairs = [next(iter(item.items())) for item in items]
        if _in_order([as_text(key) for key, _ in pairs]):
            return [(as_text(key), _text(cell)) for key, cell in pairs]
    named: list[tuple[str, str]] = []
    for item in items:
        cells = _cells_of(item)
        _, label_key = _keys_of(cells)
        named.append((as_text(cells[label_key]) if label_key else "", _text(item)))
    return _swapped([label for label, _ in named], [text for _, text in named])


def _cells_of(item: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the cells of one option under lower-case keys, without the flags that mark the true one."""
    cells = {str(key).strip().lower(): cell for key, cell in item.items()}
    plain = {key: cell for key, cell in cells.items() if re.sub(r"[\s_-]+", "", key) not in _FLAGS}
    worded = {key: cell for key, cell in plain.items() if not isinstance(cell, bool)}
    # An option may itself be true or false: then nothing else is in its object but its label.
    return worded if worded.keys() - {*_LABEL_KEYS} else plain


def _text(option: object) -> str:
    """Return the text of one option; of an object with a label the first text key, of another one all its cells."""
    if not isinstance(option, Mapping):
        return as_text(option)
    cells = _cells_of(option)
    text_key, label_key = _keys_of(cells)
    if text_key is None or label_key is None or text_key == "title":  # of a title, category and brand are part
        return as_text({key: cell for key, cell in cells.items() if key != label_key})
    return as_text(cells[text_key])


def _keys_of(cells: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the keys of an option's text and of its label; a label that stands alone is the text.

    A text comes before a number: in ``{"name": "Lamp", "value": 12.99}`` the value is a price.
    """
    present = [key for key in _TEXT_KEYS if key in cells]
    filled = [key for key in present if not is_missing(cells[key])] or present
    text = next((key for key in filled if not isinstance(cells[key], (bool, int, float))), next(iter(filled), None))
    label = next((key for key in _LABEL_KEYS if key in cells), None)
    if text is None and len(cells) == 1:
        return label, None
    return text, label


def _swapped(labels: list[str], texts: list[str]) -> list[tuple[str, str]]:
    """Pair labels with texts; where the texts are the letters, as ``{"label": "Yes", "value": "A"}``, turn them."""
    if _in_order(texts) and not _in_order(labels) and all(labels):
        labels, texts = texts, labels
    return list(zip(labels, texts, strict=True))


def _in_order(marks: Sequence[str]) -> bool:
    """Whether marks are A, B, … or 1, 2, … (or from 0)."""
    count = len(marks)
    return count > 1 and [mark.strip().upper() for mark in marks] in (
        [chr(ord("A") + at) for at in range(count)],
        [str(at) for at in range(count)],
        [str(at) for at in range(1, count + 1)],
    )


def _marks(texts: Sequence[str]) -> list[tuple[str, str]] | None:
    """Return (mark, text) of options that are all marked, in order: ``A. text``, ``(b) text``, ``1) text``."""
    found = [_MARK.match(text) for text in texts]
    if not all(found) or not _in_order([match[1] for match in found if match]):
        return None
    return [(match[1], text[match.end() :].strip()) for match, text in zip(found, texts, strict=True) if match]


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
        read_answer: returns the option that a text chooses, as it reads a model's answer.
        label_of: returns the label that an option stands for.

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
    said = _truth(text)
    by_truth = {strip_mark(option).strip(" .").casefold(): option for option in options.texts}
    if said is not None and by_truth.keys() == {"yes", "no"}:
        return Output(by_truth[said], "outputs of true/false, 1/0 or Y/N read as yes/no")
    shown = ", ".join(options.texts)
    shown = shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
    hint = " (whether counting starts at 0 or 1 is not known)" if re.fullmatch(r"\d{1,2}(\.0)?", text) else ""
    hint = hint if len(options.texts) > 1 else " (this is one option; give several as a JSON list)"
    raise RowError(f"output {text[:80]!r} is none of the options: {shown}{hint}; give one of them")


def _respelled(text: str) -> str:
    """Return a text in lower case with its words set apart: ``very_positive`` and ``VeryPositive`` are two words."""
    return " ".join(re.sub(r"[\s_-]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)).split()).casefold()


def _negated(
    text: str, read: str, options: Sequence[str], read_answer: Callable[[str, Sequence[str]], str | None]
) -> bool:
    """Whether a negation comes before the words by which `text` reads as the option `read`: ``not positive``."""
    match = _NEGATION.search(text)
    if match is None:
        return False
    mark = _MARK.match(text)
    before = text[mark.end() if mark else 0 : match.end()]
    if before and _respelled(strip_mark(read)).startswith(_respelled(before)):
        return False  # the option's own words
    return read_answer(text[match.end() :], options) == read


def _by_name(text: str, options: Options) -> str | None:
    """Return the option that the source calls `text`; None where none is, or another option reads `text`.

    Raises:
        RowError: several are called so.
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
        raise RowError(f"output {text[:80]!r} names several options: {', '.join(together)[:_SHOWN]}; give one text")
    return hits[0] if hits else None


def _number(name: str) -> str:
    """Bring a name to the form in which equal names are equal: ``1.0`` and ``1``, ``a`` and ``A``."""
    plain = name.strip().casefold()
    return plain[:-2] if re.fullmatch(r"\d+\.0", plain) else plain
