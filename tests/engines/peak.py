"""Peak of live tensors in a forward pass, on any device: also on `meta`, where shapes are real and numbers are not."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["FusedAttention", "Peak"]


class Peak(TorchDispatchMode):
    """Counts the bytes of all storages that operators create while it is active; inputs and weights are left out.

    Attributes:
        live: bytes alive now.
        peak: the largest value of `live`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for leaf in tree_leaves((args, kwargs)):  # weights and inputs; a view of one is no new storage
            self._count(leaf, created=False)
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            self._count(leaf, created=True)
        return result

    def _count(self, leaf: Any, created: bool) -> None:
        storage = leaf.untyped_storage() if isinstance(leaf, torch.Tensor) else None
        if storage is None or storage._cdata in self._sizes:
            return
        size = storage.nbytes() if created else 0
        self._sizes[storage._cdata] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, storage._cdata)

    def _free(self, key: int) -> None:
        self.live -= self._sizes.pop(key)


class FusedAttention(TorchFunctionMode):
    """Gives attention the memory of a fused kernel: its output alone, never the scores.

    On `meta` PyTorch takes the kernel that writes the scores out, which no GPU does for such shapes.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, _, value = args[:3]
        batch, heads, length, _ = query.shape
        shape = (batch, length, heads, value.shape[-1])
        return torch.empty(shape, dtype=query.dtype, device=query.device).transpose(1, 2)
