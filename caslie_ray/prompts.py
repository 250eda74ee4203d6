"""Prompts that record which of their spans may be cut: user fields, and captions of products.

A template is written as in the paper, with its slots in double braces: ``"… the question: {{question}}"``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

__all__ = ["CAPTION", "Prompt", "Span", "join", "one_line", "read_spans", "render"]

Span = tuple[int, int]
CAPTION = "caption"
_SLOT = re.compile(r"\{\{(\w+)\}\}")
# Any number of braces: {{{{caption}}}} must not become {{caption}}. Possessive: long texts stay linear.
_TYPED_SLOT = re.compile(r"(?<!\{)\{{2,}+(\w++)\}{2,}+")
# What str.splitlines splits at, with the white space that follows.
_LINE_BREAK = re.compile(r"[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]\s*+")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt, before any chat template.

    Attributes:
        text: the complete prompt.
        fields: ``[start, end)`` character offsets in `text`, in ascending order, of user fields. An engine that must
            shorten the prompt cuts words from these first.
        captions: ``[start, end)`` offsets, as above, of captions, which are cut after the fields. No caption overlaps a
            field. Only prompts of uniM³ have captions.
    """

    text: str
    fields: tuple[Span, ...] = ()
    captions: tuple[Span, ...] = ()

    def fill(self, slot: str, value: str) -> Prompt:
        """Replace the first ``{{slot}}`` by `value`, on one line. The value is not a field, so it is never cut.

        Raises:
            KeyError: the prompt has no such slot.
        """
        mark = "{{" + slot + "}}"
        at = self.text.find(mark)
        if at < 0:
            raise KeyError(f"the prompt has no slot {mark}")
        value = one_line(value)
        shift = len(value) - len(mark)

        def moved(spans: tuple[Span, ...]) -> tuple[Span, ...]:
            if not spans or spans[-1][0] < at:
                return spans
            return tuple((a + shift, b + shift) if a >= at else (a, b) for a, b in spans)

        text = self.text[:at] + value + self.text[at + len(mark) :]
        return Prompt(text, moved(self.fields), moved(self.captions))


def render(template: str, **fields: str) -> Prompt:
    """Fill the named slots of `template`; slots without a value remain, to be filled later.

    Each value is written on one line, so that no field can imitate another line of the prompt. A slot inside a field
    (``{{caption}}`` typed by a user) keeps one pair of braces, so that no user controls where the caption goes.
    """
    parts: list[str] = []
    spans: list[Span] = []
    length = 0
    last = 0
    for match in _SLOT.finditer(template):
        if match[1] not in fields:
            continue
        literal = template[last : match.start()]
        value = _TYPED_SLOT.sub(r"{\1}", one_line(fields[match[1]]))
        start = length + len(literal)
        length = start + len(value)
        parts += [literal, value]
        spans.append((start, length))
        last = match.end()
    parts.append(template[last:])
    return Prompt("".join(parts), tuple(spans))


def one_line(text: str) -> str:
    """Return a text with each run of line breaks, and of white space after one, replaced by one space."""
    return _LINE_BREAK.sub(" ", text)


def read_spans(stored: Iterable[Sequence[int]] | None) -> tuple[Span, ...]:
    """Convert spans from a table's lists; null: none."""
    return cast(tuple[Span, ...], tuple(map(tuple, stored or ())))


def join(prompts: list[Prompt], separator: str) -> Prompt:
    """Concatenate prompts, keeping their spans."""
    fields: list[Span] = []
    captions: list[Span] = []
    at = 0
    for prompt in prompts:
        fields += [(a + at, b + at) for a, b in prompt.fields]
        captions += [(a + at, b + at) for a, b in prompt.captions]
        at += len(prompt.text) + len(separator)
    return Prompt(separator.join(prompt.text for prompt in prompts), tuple(fields), tuple(captions))
