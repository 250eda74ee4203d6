"""How votes on captions are taken."""

from __future__ import annotations

from typing import Literal

from caslie_ray.profiles._base import Fraction, Settings

__all__ = ["VoteSettings"]


class VoteSettings(Settings):
    """How a verdict is reached (paper 4.2)."""

    rule: Literal["majority", "always", "never"] = "majority"
    """`majority` of the voters, `always` use the caption (UIA), or `never` (text only)."""

    schedule: Literal["early", "full"] = "early"
    """`early`: no further calls once a majority is certain. `full`: all voters on all views."""

    audit: Fraction = 0.01
    """Share of views, sampled by id, on which all voters vote despite `early`: for yes rates and agreement."""
