"""Reads the options of a record in the forms that data sets use.

Letters are kept as in the released data, ``A: text``. Any other name of an option (a number, a code) is replaced by the
option's text in the output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caslie_ray.tasks._answer_reading import strip_mark
from caslie_ray.tasks._errors import RowError
from caslie_ray.tasks._parsing import as_text, decoded, is_missing, structured, text_list

__all__ = ["MARK", "SHOWN", "Options", "read_options", "yes_or_no"]

_TEXT_KEYS = ("title", "text", "texts", "value", "values", "option", "options", "choice", "choices", "content", "name",
              "answer")  # fmt: skip
_LABEL_KEYS = ("label", "labels", "letter", "letters", "id", "ids", "key", "keys", "index", "idx")
MARK = re.compile(r"\s*[(\[]?([A-Za-z]|\d{1,2})(?:[)\]]\s*[.:]?|[.:]|\s+[-–]\s)\s*(?=\S)")
_FLAGS = frozenset({"correct", "iscorrect", "isanswer", "isright", "right", "gold", "isgold", "truth", "istrue"})
_YES = frozenset({"yes", "true", "t", "y", "1", "1.0"})
_NO = frozenset({"no", "false", "f", "n", "0", "0.0"})
SHOWN = 200


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one record.

    Attributes:
        texts: as stored and shown, in order.
        names: for each option, its other names in the source: letter, number or code, or the text as written.
    """

    texts: tuple[str, ...]
    names: tuple[tuple[str, ...], ...]


def read_options(value: object, labels: Sequence[str]) -> Options:
    """Read the `options` cell.

    Args:
        value: a list of texts, mappings or pairs; a mapping of letters to texts, or of lists; or plain text, one option
            per line.
        labels: the labels of the task. If they are yes and no, options of true and false, or 1 and 0, are replaced.

    Raises:
        RowError: the cell cannot be read.
    """
    cell = structured(value, "options")
    named = _named(cell)
    if named is not None:
        return _options(named, [text for _, text in named], labels)
    written = text_list([_text(item) for item in cell] if isinstance(cell, (list, tuple)) else cell)
    marks = _marks(written)
    # Letters that `read_answer` understands are kept, and so are numbers.
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
    own = MARK.match(text)
    return f"{letter}: {text[own.end() :] if own and own[1].upper() == letter else text}"


def _yes_no(texts: Sequence[str]) -> list[str]:
    """Replace two options that mean true and false by yes and no."""
    bare = [strip_mark(text) for text in texts]
    read = [yes_or_no(text) for text in bare]
    if {*read} != {"yes", "no"} or len(read) != 2 or {text.strip(" .").lower() for text in bare} == {"yes", "no"}:
        return list(texts)
    return [text[: len(text) - len(one)] + str(word) for text, one, word in zip(texts, bare, read, strict=True)]


def yes_or_no(text: str) -> str | None:
    """Return "yes" or "no" for a text that means true or false, otherwise None."""
    word = text.strip(" .\"'").casefold()
    return "yes" if word in _YES else "no" if word in _NO else None


def _named(value: object) -> list[tuple[str, str]] | None:
    """Return (label, text) of each option if the source names its options, otherwise None."""
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
            found = ", ".join(map(str, value))[:SHOWN]
            raise RowError(
                f"options cannot be read: an object of lists with the keys {found}; give a JSON list of texts"
            )
        texts = [as_text(item) for item in lists[text_key]]
        labels = [as_text(item) for item in lists[label_key]] if label_key else [""] * len(texts)
        if len(labels) != len(texts):
            raise RowError(f"options have {len(labels)} labels for {len(texts)} texts: give one label per text")
        return _swapped(labels, texts)
    # A Parquet struct has the keys of all rows; those of other rows are null.
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
    """Return the cells of one option with lower-case keys, without flags that mark the true option."""
    cells = {str(key).strip().lower(): cell for key, cell in item.items()}
    plain = {key: cell for key, cell in cells.items() if re.sub(r"[\s_-]+", "", key) not in _FLAGS}
    worded = {key: cell for key, cell in plain.items() if not isinstance(cell, bool)}
    # The option itself may be true or false; then its object has nothing else but its label.
    return worded if worded.keys() - {*_LABEL_KEYS} else plain


def _text(option: object) -> str:
    """Return the text of one option: the first text key of an object with a label, otherwise all its cells."""
    if not isinstance(option, Mapping):
        return as_text(option)
    cells = _cells_of(option)
    text_key, label_key = _keys_of(cells)
    if (
        text_key is None or label_key is None or text_key == "title"
    ):  # next to a title, category and brand are part of the text
        return as_text({key: cell for key, cell in cells.items() if key != label_key})
    return as_text(cells[text_key])


def _keys_of(cells: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the keys of an option's text and label; a label alone is the text.

    Text takes precedence over a number: in ``{"name": "Lamp", "value": 12.99}`` the value is a price.
    """
    present = [key for key in _TEXT_KEYS if key in cells]
    filled = [key for key in present if not is_missing(cells[key])] or present
    text = next((key for key in filled if not isinstance(cells[key], (bool, int, float))), next(iter(filled), None))
    label = next((key for key in _LABEL_KEYS if key in cells), None)
    if text is None and len(cells) == 1:
        return label, None
    return text, label


def _swapped(labels: list[str], texts: list[str]) -> list[tuple[str, str]]:
    """Pair labels with texts; swap them if the texts are the letters, as in ``{"label": "Yes", "value": "A"}``."""
    if _in_order(texts) and not _in_order(labels) and all(labels):
        labels, texts = texts, labels
    return list(zip(labels, texts, strict=True))


def _in_order(marks: Sequence[str]) -> bool:
    """Return whether marks are A, B, … or 1, 2, … (or 0, 1, …)."""
    count = len(marks)
    return count > 1 and [mark.strip().upper() for mark in marks] in (
        [chr(ord("A") + at) for at in range(count)],
        [str(at) for at in range(count)],
        [str(at) for at in range(1, count + 1)],
    )


def _marks(texts: Sequence[str]) -> list[tuple[str, str]] | None:
    """Return (mark, text) of options if all are marked in order: ``A. text``, ``(b) text``, ``1) text``."""
    found = [MARK.match(text) for text in texts]
    if not all(found) or not _in_order([match[1] for match in found if match]):
        return None
    return [(match[1], text[match.end() :].strip()) for match, text in zip(found, texts, strict=True) if match]
