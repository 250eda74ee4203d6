"""The format of a catalogue, from its header or by its name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from caslie_ray.catalogue._column_names import column_name, unique_names
from caslie_ray.catalogue._format import Format, configured
from caslie_ray.catalogue._known_formats import FORMATS
from caslie_ray.errors import SourceError
from caslie_ray.profiles import SourceKeys

__all__ = ["FORMATS", "Format", "column_name", "detect", "format_named", "shown_columns"]

_TASKS = ("task", "task_name", "task_type")
_RELEASED = ("instruction", "input", "options", "output")
_SHOWN = 300


def detect(columns: Sequence[str], keys: SourceKeys) -> Format | None:
    """Return the format of a catalogue; None if the source is no catalogue, or a data set of a task.

    Args:
        columns: the columns of the source: its header, or the keys of its first rows.
        keys: the keys of the profile, whose columns the format then has.
    """
    names = dict.fromkeys(unique_names(columns))
    if _is_of_tasks(names, keys):
        return None
    for known in FORMATS.values():
        format = configured(known, names, keys)
        if format.image_columns(names) and _fits(format, names):
            return format
    return None


def format_named(name: str, columns: Sequence[str], keys: SourceKeys) -> Format:
    """Return the format that a profile names, for a source with these columns.

    Args:
        name: a key of `FORMATS`.
        columns: the columns of the source: its header, or the keys of its first rows.
        keys: the keys of the profile, whose columns the format then has.

    Raises:
        SourceError: there is no such format, or the source lacks its columns of ids or images.
    """
    if name not in FORMATS:
        raise SourceError(f"unknown format: {name} is no format of catalogues; use one of {', '.join(FORMATS)}")
    names = dict.fromkeys(unique_names(columns))
    format = configured(FORMATS[name], names, keys)
    missing = []
    if not (format.has_id(names) or format.row_numbers):
        ids = " or ".join(" with ".join(columns) for columns in format.ids)
        missing.append(f"an id ({ids}), which ingest.keys.id names")
    if not format.image_columns(names):
        images = " or ".join((*format.images, *format.spare_images))
        missing.append(f"images ({images}), which ingest.keys.images names")
    if missing:
        raise SourceError(
            f"columns are missing: the format {name} needs a column of {', and one of '.join(missing)};"
            f" columns are {shown_columns(columns)}; name them, or choose another ingest.format"
        )
    return format


def shown_columns(columns: Iterable[object]) -> str:
    """Return the names of columns for a message, cut if there are many."""
    shown = ", ".join(map(str, columns))
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"


def _is_of_tasks(names: Iterable[str], keys: SourceKeys) -> bool:
    """Whether columns are those of MMECInstruct: one of the task, or two of the others that no catalogue has."""
    tasks = {*_TASKS, column_name(keys.task)}
    released = (keys.instruction, keys.input, keys.options, keys.output)
    others = [{default, column_name(own)} for default, own in zip(_RELEASED, released, strict=True)]
    present = set(names)
    return bool(tasks & present) or sum(bool(each & present) for each in others) > 1


def _fits(format: Format, names: Iterable[str]) -> bool:
    present = frozenset(names)
    if format.signatures:
        return any(signature <= present for signature in format.signatures)
    return format.has_id(present) or not present.isdisjoint(format.texts["title"])
