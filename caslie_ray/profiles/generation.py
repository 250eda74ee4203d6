"""How text is generated."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from caslie_ray.profiles._base import Positive, Settings

__all__ = ["Generation"]


class Generation(Settings):
    """How text is generated: greedy unless `do_sample` is set. null: the engine's default."""

    repetition_penalty: float | None = Field(default=None, gt=0.0)
    """Repetition penalty: above 1, tokens that already occurred become less likely."""

    min_new_tokens: Positive | None = None
    """Minimum length of the answer, in tokens."""

    do_sample: bool | None = None
    """Sample instead of greedy decoding. A retry may then return another answer to the same request."""

    temperature: float | None = Field(default=None, gt=0.0)
    """Sampling temperature."""

    top_k: Positive | None = None
    """Top-k sampling."""

    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    """Nucleus (top-p) sampling."""

    @model_validator(mode="after")
    def _sampled(self) -> Self:
        given = [key for key in ("temperature", "top_k", "top_p") if getattr(self, key) is not None]
        if given and not self.do_sample:
            raise ValueError(f"{', '.join(given)} only matters if do_sample is true; set it, or remove the others")
        return self
