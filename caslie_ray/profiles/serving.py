"""How models are served over HTTP."""

from __future__ import annotations

import ipaddress
from typing import Literal

from pydantic import Field

from caslie_ray.profiles._base import Positive, Seconds, Settings, Whole
from caslie_ray.profiles.pool import Pool

__all__ = ["ServingSettings"]


class ServingSettings(Settings):
    """How `serve` listens, limits requests, and takes votes."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address to listen on; `0.0.0.0` for all. Beyond loopback, a token is required."""

    port: int = Field(default=8000, ge=1, le=65535)
    """TCP port to listen on."""

    token_variable: str = Field(default="CASLIE_TOKEN", pattern=r"^[A-Za-z_]\w*$")
    """Environment variable with the bearer token that clients must send."""

    open: bool = False
    """Whether to listen beyond loopback without a token, for instance behind a gateway that authenticates."""

    voters: Literal["early", "together"] = "early"
    """`early`: cheapest first, no further calls once a majority is certain (fewer calls). `together`: all at once
    (lower latency)."""

    deadline_s: Seconds = 60.0
    """Maximum seconds per request; a request may ask for less."""

    voter_timeout_s: Seconds = 20.0
    """Seconds after which a voter that does not answer counts as failed; the others decide if they are a quorum."""

    batch_wait_s: float = Field(default=0.005, ge=0.0)
    """Seconds that a model waits for further requests before it computes a batch that is not full."""

    queue: Positive = 256
    """Maximum requests waiting for one model; more are refused with 429."""

    max_body_bytes: Positive = 64_000_000
    """Maximum bytes of a request body; base64 takes a third more than the image."""

    max_items: Positive = 32
    """Maximum requests in a batch."""

    cache: Whole = 10_000
    """Answers that each gateway replica caches, by the keys of the ledger; 0: none."""

    gateway: Pool = Pool()
    """Replicas of the HTTP gateway, which decode images and call the models."""

    drain_s: Seconds = 60.0
    """Seconds that a replica which is replaced has to finish its requests."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False
