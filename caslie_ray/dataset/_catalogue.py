"""Rows of a catalogue become products, joined where several rows describe one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass

from caslie_ray.catalogue.contexts import Context, contexts_of
from caslie_ray.catalogue.formats import Format, column_name, detect, format_named
from caslie_ray.catalogue.joining import Joiner
from caslie_ray.errors import SourceError
from caslie_ray.profiles import Profile, SourceKeys

__all__ = ["CatalogueSettings"]

_SAMPLES = "mmecinstruct"


@dataclass(frozen=True)
class CatalogueSettings:
    """How catalogues are read.

    Attributes:
        format: name of the format, as in `ingest.format`.
        keys: names of columns.
        contexts: what the images are captioned for.
    """

    format: str
    keys: SourceKeys
    contexts: tuple[Context, ...]

    @classmethod
    def of(cls, profile: Profile) -> CatalogueSettings:
        """Return the settings of a profile.

        Raises:
            ProfileError: a context cannot be used.
        """
        return cls(profile.ingest.format, profile.ingest.keys, contexts_of(profile.contexts))

    @property
    def identity(self) -> list[object]:
        """Everything that the products of a file depend on, besides the file, as plain values."""
        return [self.format, [astuple(context) for context in self.contexts]]

    def is_product(self, row: Mapping[str, object]) -> bool:
        """Whether an object has the columns of a product."""
        try:
            return self._format(row) is not None
        except SourceError:
            return False

    def joiner(self, columns: Iterable[object]) -> Joiner | None:
        """Return what reads the products of a file with these columns; None if its rows are samples.

        Raises:
            SourceError: the file lacks a column that the format or a context needs.
        """
        found = self._format(columns)
        if found is None:
            return None
        known = dict.fromkeys(map(column_name, columns))
        for text, sources in found.texts.items():
            if (source := next((name for name in sources if name in known), None)) is not None:
                del known[source]  # a product has this text as `text` only
                known[text] = None
        for context in self.contexts:
            if (reason := context.missing(known)) is not None:
                raise SourceError(reason)
        return Joiner(found, self.keys)

    def _format(self, columns: Iterable[object]) -> Format | None:
        names = [str(name) for name in columns]
        if self.format == _SAMPLES:
            return None
        if self.format == "auto":
            return detect(names, self.keys)
        return format_named(self.format, names, self.keys)
