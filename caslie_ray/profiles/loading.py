"""From a profile's name or file, and overrides, to a validated Profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from pydantic import ValidationError

from caslie_ray.errors import RunError
from caslie_ray.profiles._yaml import parse, problem_of
from caslie_ray.profiles.errors import Location, ProfileError, explain, may_be_secret, nearest, unknown_key
from caslie_ray.profiles.overrides import apply_override, label_of
from caslie_ray.profiles.schema import Profile
from caslie_ray.storage.filesystems import open_path
from caslie_ray.storage.redaction import public_uri

__all__ = ["load_profile", "profile_names"]

SHIPPED = Path(__file__).parent
SUFFIXES = (".yaml", ".yml")
EXTENDS = "extends"


@dataclass(frozen=True, slots=True)
class _Layer:
    """One file of a profile that may extend others."""

    source: str
    document: dict[str, Any]


def profile_names() -> tuple[str, ...]:
    """Names of the profiles that come with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def load_profile(name_or_path: str, overrides: Sequence[str] = ()) -> Profile:
    """Load a profile by name (`mini`), file, or object-store URI, with `key.path=value` overrides.

    A file may extend another (`extends: caslie-s`): groups of keys are merged; other values, lists included,
    are replaced. Overrides are applied last, in order.

    Raises:
        ProfileError: it cannot be found or read, or has a wrong key or value.
    """
    layers = _layers(str(name_or_path), before=())
    document: dict[str, Any] = {}
    for layer in reversed(layers):
        document = _merged(document, layer.document)
    changed: list[tuple[Location, str]] = []
    for override in overrides:
        document, where = apply_override(document, override, Profile)
        changed.append((where, label_of(override)))

    def origin(where: Location) -> str:
        for path, label in reversed(changed):
            if where[: len(path)] == path:
                return label
        # A missing key belongs to the file that has most of its path.
        source = max(layers, key=lambda layer: _depth(layer.document, where)).source
        below = [label for path, label in changed if path[: len(where)] == where]
        return f"{source} with {' '.join(below)}" if below else source

    try:
        return Profile.model_validate(document)
    except ValidationError as error:
        raise explain(error, Profile, document, origin) from None


def _layers(reference: str, before: tuple[str, ...]) -> list[_Layer]:
    """Read the file of a reference and those that it extends, most specific first."""
    source = _find(reference, base=before[-1] if before else None)
    if source in before:
        raise ProfileError(f"{before[-1]}: extends: {reference}: the profiles extend each other in a cycle")
    document = _read(source)
    parent = document.pop(EXTENDS, None)
    document.setdefault("name", public_uri(source).rsplit("/", 1)[-1].rsplit(".", 1)[0])
    unknown = [key for key in document if key not in Profile.model_fields]
    if unknown:
        key = str(unknown[0])
        raise ProfileError(f"{source}: {key}: {unknown_key(Profile, (), key, extra=(EXTENDS,))}")
    layer = _Layer(source, document)
    if parent is None:
        return [layer]
    if not isinstance(parent, str):
        raise ProfileError(f"{source}: extends: {parent!r}: should be the name or the file of another profile")
    return [layer, *_layers(parent, (*before, source))]


def _find(reference: str, base: str | None) -> str:
    """Return the file or URI of a reference; `base` is the file whose `extends` it is."""
    if "://" in reference:
        return reference
    if "/" not in reference and not reference.endswith(SUFFIXES):
        if reference in profile_names():
            return str(SHIPPED / f"{reference}.yaml")
        if base is None and Path(reference).is_file():
            return reference
        where = f"{base}: extends: " if base else ""
        raise ProfileError(
            f"{where}{reference}: no such profile; did you mean {nearest(reference, profile_names())}? "
            f"Known: {', '.join(profile_names())}, or the path of a YAML file"
        )
    if base is None or reference.startswith("/"):
        return reference
    return f"{base.rpartition('/')[0] or '.'}/{reference}"


def _read(source: str) -> dict[str, Any]:
    """The keys of one file."""
    try:
        filesystem, path = open_path(source)
        with filesystem.open_input_stream(path) as stream:
            text = stream.read().decode("utf-8")
    except (OSError, pa.ArrowException, UnicodeDecodeError, RunError) as error:
        raise ProfileError(f"{source}: cannot be read: {error}") from None
    try:
        document = parse(text)
    except yaml.YAMLError as error:
        raise ProfileError(f"{source}: is not YAML: {problem_of(error, quote=not may_be_secret(text))}") from None
    if not isinstance(document, dict):
        raise ProfileError(f"{source}: should hold keys such as {', '.join(list(Profile.model_fields)[:4])}")
    return document


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge groups of keys; other values of `above` replace those of `below`."""
    result = dict(below)
    for key, value in above.items():
        held = result.get(key)
        result[key] = _merged(held, value) if isinstance(held, dict) and isinstance(value, dict) else value
    return result


def _depth(document: object, where: Location) -> int:
    """Return how many steps of a location exist in a document."""
    for depth, step in enumerate(where):
        held = isinstance(document, dict) and step in document
        if not held and not (isinstance(document, list) and isinstance(step, int) and step < len(document)):
            return depth
        document = document[step]  # type: ignore[index]  # a dict that holds it or a list that is long enough
    return len(where)
