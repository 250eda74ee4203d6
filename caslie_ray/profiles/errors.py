"""Error messages of profiles: what is wrong, where, and what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from caslie_ray.profiles._base import Settings
from caslie_ray.storage.redaction import without_credentials

__all__ = ["Location", "ProfileError", "explain", "known_keys", "may_be_secret", "name_of", "nearest", "unknown_key"]

Location = tuple[str | int, ...]
"""Where in a profile: keys, and the index in a list."""

SHOWN = 80
# User info or options.
_URI_WITH_MORE = re.compile(r"://[^\s'\"]*[@?]")


class ProfileError(ValueError):
    """A profile that cannot be used. The message names file, key, value and what is allowed, and no credentials."""

    def __init__(self, message: str) -> None:
        super().__init__(without_credentials(message))


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Return the known word most similar to this one; None only if there is no known word."""
    folded = {entry.casefold(): entry for entry in known}
    found = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.0)
    return folded[found[0]] if found else None


def _group(annotation: object) -> type[BaseModel] | None:
    """The group of settings that an annotation holds, through tuples and unions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((group for part in get_args(annotation) if (group := _group(part))), None)


def _group_at(schema: type[BaseModel], where: Location) -> type[BaseModel] | None:
    """The group of settings at a location, or None if there is none."""
    group: type[BaseModel] | None = schema
    named = False  # whether the next step is the user's name of a group
    for step in where:
        if isinstance(step, int):
            continue
        if named:
            named = False
            continue
        if group is None or step not in group.model_fields:
            return None
        annotation = group.model_fields[step].annotation
        named = get_origin(annotation) is dict
        group = _group(annotation)
    return None if named else group


def known_keys(schema: type[BaseModel], where: Location) -> list[str] | None:
    """The keys that a location may hold; None if it is not a group of settings."""
    group = _group_at(schema, where)
    return None if group is None else list(group.model_fields)


def _all_paths(group: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, field in group.model_fields.items():
        yield (*prefix, key)
        below = _group(field.annotation)
        if below is not None:
            yield from _all_paths(below, (*prefix, key))


def unknown_key(schema: type[BaseModel], where: Location, key: str, extra: Sequence[str] = ()) -> str:
    """Which key was meant, and which there are: the second half of a message."""
    siblings = [*(known_keys(schema, where) or ()), *extra]
    close = difflib.get_close_matches(key.casefold(), siblings, n=1, cutoff=0.6)
    elsewhere = [".".join(path) for path in _all_paths(schema) if path[-1] == key]
    meant = elsewhere[0] if elsewhere else close[0] if close else nearest(key, siblings)
    return f"unknown key; did you mean {meant}? Known here: {', '.join(siblings)}"


def name_of(where: Location, document: object) -> str:
    """A location as a user writes it: `lineup.voters.phi.batch_size`, items by name where they have one."""
    steps: list[str] = []
    for step in where:
        below: object = None
        if isinstance(document, dict):
            below = document.get(step)
        elif isinstance(document, list) and isinstance(step, int) and step < len(document):
            below = document[step]
        named = isinstance(step, int) and isinstance(below, dict) and isinstance(below.get("name"), str)
        steps.append(str(below["name"]) if named and isinstance(below, dict) else str(step))
        document = below
    return ".".join(steps)


def may_be_secret(*parts: object) -> bool:
    """Whether part of a profile may hold values of request headers or credentials of a URI, wherever they were put:
    messages leave them out."""
    return any("header" in str(part).lower() or _URI_WITH_MORE.search(str(part)) for part in parts)


def _shown(value: object) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _allowed(message: str) -> str:
    return message.replace("Input should", "should").replace("valid tuple", "list").replace("valid dictionary", "group")


def explain(
    error: ValidationError,
    schema: type[Settings],
    document: dict[str, Any],
    origin: Callable[[Location], str],
) -> ProfileError:
    """A validation error as a ProfileError, a line for each thing that is wrong.

    `origin` gives the file or the `--set` argument that a location came from.
    """
    lines = []
    for problem in error.errors():
        where = problem["loc"]
        label = name_of(where, document) or "profile"
        value = problem["input"]
        shown = label if may_be_secret(where, value) else f"{label}: {_shown(value)}"
        if problem["type"] == "extra_forbidden":
            text = f"{shown}: {unknown_key(schema, where[:-1], str(where[-1]))}"
        elif problem["type"] == "missing":
            text = f"{label}: missing, but required"
        elif problem["type"] == "value_error":
            text = f"{label}: {problem['ctx']['error']}"
        elif problem["type"] in ("model_type", "model_attributes_type"):
            keys = ", ".join(known_keys(schema, where) or ())
            text = f"{shown}: should be a group of keys: {keys}"
        else:
            text = f"{shown}: {_allowed(problem['msg'])}"
        lines.append(f"{origin(where)}: {text}")
    return ProfileError("\n".join(lines))
