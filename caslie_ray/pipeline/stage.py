"""The callable class that a chain's actor pools hold."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from caslie_ray.pipeline.replica import Replica

__all__ = ["ModelStage", "stage_class"]


class ModelStage:
    """A replica of a model, as Ray Data constructs, calls and deletes it.

    Nothing else refers to it, so that it is closed when Ray Data deletes it, before the actor ends.

    Args:
        arguments: of `Replica`.

    Raises:
        LoadError: the model cannot be loaded on this node, but may be on another one. Ray Data starts a replacement.
    """

    def __init__(self, *arguments: Any) -> None:
        self._replica = Replica(*arguments)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Answer one block; a failed one passes through."""
        return self._replica(batch)

    def __del__(self) -> None:
        if hasattr(self, "_replica"):
            self._replica.close()


def stage_class(name: str) -> type[ModelStage]:
    """Return `ModelStage` under the name of its model, for Ray's dashboard."""
    label = "".join(letter if letter.isalnum() else "_" for letter in name)
    return type(f"ModelStage_{label}", (ModelStage,), {"__doc__": ModelStage.__doc__})
