"""What a replica requests from the cluster."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from caslie_ray.profiles._base import Listed, Settings

__all__ = ["Resources"]


class Resources(Settings):
    """What one replica of a model requests from the cluster. Ray schedules by it but does not enforce it."""

    cpus: float = Field(default=1.0, ge=0.0)
    """CPU cores per replica; may be a fraction."""

    gpus: float = Field(default=0.0, ge=0.0)
    """GPUs per replica; a fraction shares one GPU. 0 runs on the CPU."""

    memory_gib: float = Field(default=0.0, ge=0.0)
    """Main memory per replica, in GiB; 0 requests none."""

    labels: Listed[dict[str, str]] = ()
    """Ray label selectors of nodes, in order of preference; none for any node.
    ``[{"ray.io/market-type": "spot"}, {}]`` places replicas on spot nodes, and elsewhere if those have no room."""

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.gpus > 1 and not float(self.gpus).is_integer():
            raise ValueError(f"gpus is {self.gpus}; above 1 it must be a whole number: Ray does not split a second GPU")
        return self
