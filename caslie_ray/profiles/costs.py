"""The price of a cluster."""

from __future__ import annotations

from pydantic import Field

from caslie_ray.profiles._base import Settings

__all__ = ["CostSettings"]


class CostSettings(Settings):
    """What `--plan` multiplies its hours by."""

    hour_usd: float = Field(default=0.0, ge=0.0)
    """Price of one hour of the whole cluster in US dollars; 0 if it is free or unknown."""
