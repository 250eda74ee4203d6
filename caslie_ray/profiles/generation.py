"""How text is generated."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from caslie_ray.profiles._base import Positive, Settings

__all__ = ["Generation"]


class Generation(Settings):
    """How text is generated: greedy unless `do_sample` is set. What is null is left out."""

    repetition_penalty: float | None = Field(default=None, gt=0.0)
    """Above 1, tokens that already occurred become less likely."""

    min_new_tokens: Positive | None = None
    """Tokens before the answer may end."""

    do_sample: bool | None = None
    """Draw tokens at random. The same request may then be answered otherwise by a retry."""

    temperature: float | None = Field(default=None, gt=0.0)
    """Above 1, unlikely tokens are drawn more often; below 1, less."""

    top_k: Positive | None = None
    """Draw among so many of the likeliest tokens."""

    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    """Draw among the likeliest tokens that together have this probability."""

    @model_validator(mode="after")
    def _sampled(self) -> Self:
        given = [key for key in ("temperature", "top_k", "top_p") if getattr(self, key) is not None]
        if given and not self.do_sample:
            raise ValueError(f"{', '.join(given)} only matters where do_sample is true; set it, or leave that out")
        return self
