"""What an export format's columns are."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from caslie_ray.catalogue._column_names import column_name
from caslie_ray.profiles import SourceKeys

__all__ = ["Format", "column_sets", "configured"]

_NUMBERED = re.compile(r"(.+?)_?(\d{1,4})")
_DEFAULTS = SourceKeys()


@dataclass(frozen=True, slots=True)
class Format:
    """The columns of an export format. All names are as `column_name` returns them.

    Attributes:
        name: the name in `ingest.format`.
        signatures: sets of columns; a header with all of one set has this format.
        ids: columns of the product's id, in order of preference. Values of several columns together are one id.
        texts: canonical names of texts, each with its columns in order of preference.
        images: columns of images, in order. Columns with a number (`image_2`) follow the one without.
        spare_images: columns of images where a header has none of `images`.
        html: columns with HTML.
        separators: characters that separate the references in one cell.
        image_order: column with the place of a row's image among those of its product.
        joins: whether consecutive rows of one product are joined: rows with one id or one value of `group`.
        group: columns that join rows, in order of preference; without them, the id does.
        levels: columns of lists that go from general to special, such as categories.
        main_first: whether the image object with the variant `MAIN` is the first.
        no_image: texts in columns of images that mean that there is none.
        relative_paths: whether image paths that begin with a slash are relative, too.
        escaped_lines: whether columns with HTML have line breaks as a backslash and `n`.
        row_numbers: whether rows without an id have their number as the id.
        note: how rows of this format are read, where a user may not expect it.
    """

    name: str
    signatures: tuple[frozenset[str], ...]
    ids: tuple[tuple[str, ...], ...]
    texts: Mapping[str, tuple[str, ...]]
    images: tuple[str, ...]
    spare_images: tuple[str, ...] = ()
    html: frozenset[str] = frozenset()
    separators: str = ",;|\n"
    image_order: str = ""
    joins: bool = False
    group: tuple[str, ...] = ()
    levels: frozenset[str] = frozenset()
    main_first: bool = False
    no_image: frozenset[str] = frozenset()
    relative_paths: bool = False
    escaped_lines: bool = False
    row_numbers: bool = False
    note: str = ""

    def image_columns(self, names: Collection[str]) -> dict[str, tuple[int, int]]:
        """Return the columns of images among `names`, each with its place in the order of images."""
        numbered: dict[str, dict[str, int]] = {}
        for name in names:
            parts = _NUMBERED.fullmatch(name)
            if parts is not None:
                numbered.setdefault(parts[1], {})[name] = int(parts[2])
        for columns in (self.images, self.spare_images):
            found = {}
            for place, column in enumerate(columns):
                if column in names:
                    found[column] = (place, -1)
                found |= {name: (place, number) for name, number in numbered.get(column, {}).items()}
            if found:
                return dict(sorted(found.items(), key=lambda item: item[1]))
        return {}

    def has_id(self, names: Collection[str]) -> bool:
        """Whether `names` have the columns of an id."""
        return any(all(column in names for column in columns) for columns in self.ids)


def column_sets(*columns: str) -> tuple[frozenset[str], ...]:
    """Return sets of columns, each from names with spaces between."""
    return tuple(frozenset(each.split()) for each in columns)


def configured(format: Format, names: Collection[str], keys: SourceKeys) -> Format:
    """Return a format with the columns that a profile's keys name, as far as a source has them.

    Args:
        format: the format.
        names: the columns of the source, as `column_name` returns them.
        keys: the keys of the profile. Those that it leaves at their defaults change nothing.
    """
    own_id, images = column_name(keys.id), column_name(keys.images)
    if keys.id != _DEFAULTS.id and own_id in names:
        format = replace(format, ids=((own_id,),), row_numbers=False)
    if keys.images != _DEFAULTS.images and replace(format, images=(images,), spare_images=()).image_columns(names):
        format = replace(format, images=(images,), spare_images=())
    fields = {column_name(source): column_name(text) for source, text in keys.fields.items()}
    fields = {source: text for source, text in fields.items() if source in names and text}
    if not fields:
        return format
    texts = {
        text: tuple(column for column in columns if column not in fields) for text, columns in format.texts.items()
    }
    for source, text in reversed(fields.items()):
        texts[text] = (source, *texts.get(text, ()))
    return replace(format, texts=texts)
