"""Parallel strategies: what each worker holds of the base, and how gradients are summed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

__all__ = ["DdpStrategy", "FsdpStrategy", "Strategy", "strategy_for"]


class Strategy:
    """A single worker; the base class of the others.

    Args:
        module: computes the summed loss of a micro-batch.
    """

    collective = False
    """Whether forward and backward passes are collective: then no worker can repeat a failed one on its own."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def passes(self, parts: int) -> int:
        """Return the number of forward passes of a worker that has so many micro-batches."""
        return parts

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by the sum over all workers."""


class DdpStrategy(Strategy):
    """Data parallel: each worker has the whole base and a copy of the adapter.

    Does not use DistributedDataParallel: its all-reduce is part of the backward pass, which a worker that runs out of
    memory repeats on its own. An adapter's gradients are small and are summed once per step.
    """

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """One fused all-reduce; a missing gradient counts as zero."""
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients: list[Tensor] = [parameter.grad for parameter in parameters if parameter.grad is not None]
        fused = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(fused)
        for gradient, summed in zip(gradients, fused.split([one.numel() for one in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))


class FsdpStrategy(DdpStrategy):
    """FSDP: each worker holds a shard of the base's frozen weights; a layer's shards are all-gathered for its passes.

    The adapter is small and replicated, so that saving, clipping and resuming are those of a single worker.

    Args:
        module: computes the summed loss of a micro-batch; its model has an adapter, and may be on the CPU.
        device: where it computes.
    """

    collective = True

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__(module)
        self._device = device
        trained = {parameter for parameter in module.parameters() if parameter.requires_grad}
        for parameter in trained:
            parameter.data = parameter.data.to(device)
        mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        for layer in _layers(module):
            fully_shard(layer, mesh=mesh, ignored_params=trained)
        fully_shard(module, mesh=mesh, ignored_params=trained, reshard_after_forward=True)

    def passes(self, parts: int) -> int:
        """Return the maximum over all workers, since every pass is collective."""
        most = torch.tensor(parts, device=self._device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return int(most)


def strategy_for(module: nn.Module, world: int, device: torch.device, *, shard: bool) -> Strategy:
    """Return the strategy of a number of workers.

    Args:
        module: computes the summed loss of a micro-batch.
        world: number of workers; above 1 the process group must be initialized.
        device: where this one computes.
        shard: shard the base over the workers.
    """
    if world > 1 and shard:
        return FsdpStrategy(module, device)
    module.to(device)
    return Strategy(module) if world == 1 else DdpStrategy(module)


def _layers(module: nn.Module) -> list[nn.Module]:
    """Return the decoder's layers: the longest list of modules."""
    return max((list(part) for part in module.modules() if isinstance(part, nn.ModuleList)), key=len)
