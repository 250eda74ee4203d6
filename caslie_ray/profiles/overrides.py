"""`--set key.path=value`: single settings changed from the command line."""

from __future__ import annotations

import copy
import re
from typing import Any

import yaml
from pydantic import BaseModel

from caslie_ray.profiles._yaml import parse, problem_of
from caslie_ray.profiles.errors import (
    Location,
    ProfileError,
    known_keys,
    may_be_secret,
    name_of,
    nearest,
    unknown_key,
)

__all__ = ["apply_override", "label_of"]


def label_of(text: str) -> str:
    """Return an override as messages name it, without values of request headers."""
    if not may_be_secret(text):
        return f"--set {text}"
    path = re.split(r"[=:{\s]", text.strip(), maxsplit=1)[0]
    return f"--set {path}=…"


def apply_override(document: dict[str, Any], text: str, schema: type[BaseModel]) -> tuple[dict[str, Any], Location]:
    """Return the document with one setting changed, and the location of the change.

    List items go by index or by name: `lineup.voters.0.batch_size=8`, `lineup.voters.phi.batch_size=8`.

    Raises:
        ProfileError: there is no `=`, the value is not YAML, or the path does not exist.
    """
    label, quote = label_of(text), not may_be_secret(text)
    path, found, raw = text.partition("=")
    steps = [step.strip() for step in path.split(".")]
    if not found or not all(steps):
        raise ProfileError(f"{label}: should be key.path=value, such as votes.schedule=full")
    try:
        value = parse(raw)
    except yaml.YAMLError as error:
        value = f"the value {raw!r}" if quote else "the value"
        raise ProfileError(f"{label}: {value} is not YAML: {problem_of(error, quote=quote)}") from None

    changed = copy.deepcopy(document)
    node: Any = changed
    where: Location = ()
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        if isinstance(node, list):
            index = _index(node, step, f"{label}: {name_of(where, changed)}")
            where = (*where, index)
            if last:
                node[index] = value
            else:
                node = node[index]
            continue
        known = known_keys(schema, where)
        if known is not None and step not in known:
            raise ProfileError(f"{label}: {name_of((*where, step), changed)}: {unknown_key(schema, where, step)}")
        if not isinstance(node, dict):
            held = f"{node!r}, which" if quote else "a value that"
            raise ProfileError(f"{label}: {name_of(where, changed)} is {held} has no key {step}")
        where = (*where, step)
        if last:
            node[step] = value
        else:
            if node.get(step) is None:
                node[step] = {}
            node = node[step]
    return changed, where


def _index(items: list[Any], step: str, label: str) -> int:
    """Position of a list item given by index or by name."""
    names = [str(item["name"]) if isinstance(item, dict) and "name" in item else None for item in items]
    if step in names:
        return names.index(step)
    if step.isdecimal() and int(step) < len(items):
        return int(step)
    known = [name for name in names if name]
    meant = f"; did you mean {nearest(step, known)}? Known here: {', '.join(known)}" if known else ""
    raise ProfileError(f"{label} has no item {step}, and {len(items)} in all{meant}")
