"""Maps the columns of a source to those of the released format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from caslie_ray.profiles import SourceKeys
from caslie_ray.tasks import RowError, decoded, is_missing, read_split

__all__ = ["Columns", "split_of_name"]

_ALIASES: dict[str, tuple[str, ...]] = {
    "task": ("task_name", "task_type"),
    "split": ("subset", "partition", "set"),
    "instruction": ("instructions",),
    "input": ("inputs",),
    "options": ("option", "choices", "candidates"),
    "output": ("outputs", "answer", "response", "target", "label"),
    "images": ("image", "image_urls", "image_url", "image_paths", "image_path", "image_list", "img"),
    "caption_info": ("captions", "caption"),
    # The first that is not empty: the row's own id precedes that of its product, which several rows may share.
    "id": (
        "sample_id", "example_id", "row_id", "uid", "uuid", "guid", "item_id", "product_id", "sku", "asin",
        "parent_asin",
    ),
}  # fmt: skip


@lru_cache(maxsize=4096)
def _plain(name: object) -> str:
    # Some converters leave a byte order mark in the first column's name.
    return re.sub(r"[\s_-]+", "_", str(name).strip("\ufeff \t\r\n").lower())


@dataclass(frozen=True)
class Columns:
    """Which column of a source is which of the released format.

    Attributes:
        names: for each column of the release the names it may have, the configured one first.
        fields: keys inside the input that differ from the release's: source key to released key.
    """

    names: Mapping[str, tuple[str, ...]]
    fields: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, keys: SourceKeys) -> Columns:
        """Return the columns that a profile's keys name; their usual other names are understood too."""
        configured = {name: getattr(keys, "captions" if name == "caption_info" else name) for name in _ALIASES}
        names = {
            name: tuple(dict.fromkeys(map(_plain, (configured[name], name, *aliases))))
            for name, aliases in _ALIASES.items()
        }
        return cls(names, {_plain(source): released for source, released in keys.fields.items()})

    def known(self, key: object) -> str | None:
        """Return the released name of a column; None if the release has no such column."""
        name = _plain(key)
        return next((column for column, names in self.names.items() if name in names), None)

    def is_row(self, value: object) -> bool:
        """Whether a JSON value is a row of a data set, rather than part of one."""
        return isinstance(value, Mapping) and any(_plain(key) in self.names["task"] for key in value)

    def read(self, record: Mapping[str, object], split: str | None) -> dict[str, object]:
        """Return the record under the release's names.

        Columns with other names are kept under ``other_columns``, by the names of the source.

        Args:
            record: one row of a source.
            split: the split where the row itself names none.
        """
        cells = {_plain(key): value for key, value in record.items()}
        row: dict[str, object] = {}
        for column, names in self.names.items():
            found = [cells[name] for name in names if name in cells]
            if found:
                row[column] = next((value for value in found if not is_missing(value)), found[0])
        if split is not None and is_missing(row.get("split")):
            row["split"] = split
        claimed = {name for names in self.names.values() for name in names}
        others = {key: value for key, value in record.items() if _plain(key) not in claimed}
        if others and is_missing(row.get("input")):
            row["other_columns"] = self._renamed(others)
        if self.fields and "input" in row:
            with suppress(RowError):  # the task reports what is wrong with the cell
                given = decoded(row["input"])
                if isinstance(given, Mapping):
                    row["input"] = self._renamed(given)
        return row

    def _renamed(self, cells: Mapping[Any, Any]) -> dict[str, Any]:
        return {self.fields.get(_plain(key), str(key)): value for key, value in cells.items()}


def split_of_name(file: str) -> str | None:
    """Return the split in a file's name (``ood_test.jsonl``), or None."""
    stem = re.sub(r"(\.(jsonl?|ndjson|parquet|gz))+$", "", file.rsplit("/", 1)[-1], flags=re.IGNORECASE)
    words = [word for word in re.split(r"[^A-Za-z]+", stem) if word]
    for size in (3, 2, 1):
        for start in range(len(words) - size + 1):
            with suppress(RowError):
                return read_split("".join(words[start : start + size]))
    return None
