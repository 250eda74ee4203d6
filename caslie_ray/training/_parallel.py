"""How workers train one adapter together: what each holds of the base, and how their gradients become one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

__all__ = ["Parallel", "parallel_to"]


class Parallel:
    """One worker; also what the others have in common.

    Args:
        module: computes the summed loss of a micro-batch.
    """

    collective = False
    """Whether a forward or backward pass needs every worker: then none can repeat a failed one on its own."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def passes(self, parts: int) -> int:
        """How many forward passes a worker with so many micro-batches has to make."""
        return parts

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make each gradient the sum of those of all workers."""


class Copied(Parallel):
    """Data parallel: each worker has the whole base and a copy of the adapter.

    There is no DistributedDataParallel: its all-reduce is part of the backward pass, which a worker that runs out of
    memory repeats on its own. The gradients of an adapter are small and are summed once per step.
    """

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """One fused all-reduce; a missing gradient counts as zero."""
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients: list[Tensor] = [parameter.grad for parameter in parameters if parameter.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        for gradient, summed in zip(gradients, together.split([one.numel() for one in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))


class Sharded(Copied):
    """FSDP: each worker has its part of the base's frozen weights, and borrows a layer's others while it computes it.

    The adapter is small and whole on each worker, so that it is saved, clipped and taken up again as with one.

    Args:
        module: as above; its model has an adapter, and may still lie on the CPU.
        device: where it is to lie.
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
        """As many as the worker that has most: every pass borrows from all of them."""
        most = torch.tensor(parts, device=self._device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return int(most)


def parallel_to(module: nn.Module, world: int, device: torch.device, *, shard: bool) -> Parallel:
    """Return how so many workers train a module together.

    Args:
        module: computes the summed loss of a micro-batch.
        world: how many workers there are; above 1 the process group must stand.
        device: where this one computes.
        shard: share the base out among them.
    """
    if world > 1 and shard:
        return Sharded(module, device)
    module.to(device)
    return Parallel(module) if world == 1 else Copied(module)


def _layers(module: nn.Module) -> list[nn.Module]:
    """The layers of the decoder: its longest list of modules."""
    return max((list(part) for part in module.modules() if isinstance(part, nn.ModuleList)), key=len)
