"""The class that every group of settings is made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Fraction", "Listed", "Positive", "Seconds", "Settings", "Whole", "check_voter_sets"]

Item = TypeVar("Item")

Positive = Annotated[int, Field(ge=1)]
"""A count of at least one."""

Whole = Annotated[int, Field(ge=0)]
"""A count that may be zero."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share between 0 and 1, both allowed."""

Seconds = Annotated[float, Field(gt=0.0)]
"""A length of time in seconds, more than zero."""

Listed = Annotated[tuple[Item, ...], Field(strict=False)]
"""A YAML list, stored as a tuple. Only the list itself is converted; its items are checked strictly."""


class Settings(BaseModel):
    """A frozen group of settings: no unknown keys, and strict types (no "8" for 8, no true for 1)."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )


def check_voter_sets(sets: Sequence[Sequence[str]]) -> None:
    """Check sets of voters whose majorities are compared.

    Raises:
        ValueError: a set is not of an odd number of different voters, or is named twice.
    """
    for names in sets:
        if len(names) % 2 == 0 or len(set(names)) < len(names):
            raise ValueError(f"voter_sets: {', '.join(names) or '[]'}: name an odd number of different voters")
    if len({frozenset(names) for names in sets}) < len(sets):
        raise ValueError("voter_sets: a set is named twice")
