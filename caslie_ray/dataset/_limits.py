"""Limits on the memory, time and disk that one source file may take, however small it is."""

from __future__ import annotations

from dataclasses import dataclass

from caslie_ray.profiles import IngestSettings

__all__ = ["DEFAULT", "ROW_BYTES", "Limits", "OverLimit", "Ratio"]

_FREE = 16 << 20  # bytes that a file of any size may unpack to
ROW_BYTES = 1 << 10
"""Bytes that a row counts as, at least."""


class OverLimit(Exception):
    """A file is over a limit, and no more of it is read; the message is the reason of its reject."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of `IngestSettings`, under the same names without ``max_``."""

    rows: int
    row_bytes: int
    row_values: int
    nesting: int
    columns: int
    ratio: int
    temporary_bytes: int

    @classmethod
    def of(cls, settings: IngestSettings) -> Limits:
        """Return the limits that a profile sets."""
        return cls(**{name: getattr(settings, f"max_{name}") for name in cls.__slots__})

    @property
    def page_bytes(self) -> int:
        """Unpacked bytes of a Parquet page. A page holds many rows."""
        return 8 * self.row_bytes

    @property
    def batch_bytes(self) -> int:
        """Bytes of the Parquet rows that are decoded together, where there are several."""
        return 4 * self.row_bytes


DEFAULT = Limits.of(IngestSettings())


class Ratio:
    """Compares what a file unpacks to with its size. Not thread-safe.

    Args:
        limits: the limits.
        size: bytes of the file; for a stream, increase `size` as it is read.
    """

    def __init__(self, limits: Limits, size: int = 0) -> None:
        self._limits = limits
        self.size = size

    def check(self, unpacked: int) -> None:
        """Compare bytes unpacked so far.

        Raises:
            OverLimit: they are too many.
        """
        if unpacked > _FREE + self._limits.ratio * self.size:
            raise OverLimit(
                f"source refused: it unpacks to more than {self._limits.ratio} times its size, as data made to fill"
                " memory does; any rows before this are kept; for sound data raise ingest.max_ratio"
            )

    def check_rows(self, rows: int) -> None:
        """Compare the number of rows so far.

        Raises:
            OverLimit: they are too many for the size, or at all.
        """
        if rows > self._limits.rows:
            raise OverLimit(
                f"source refused: more than {self._limits.rows:,} rows; the rows before this are kept; split the file"
                " or raise ingest.max_rows"
            )
        self.check(rows * ROW_BYTES)
