"""The device a model runs on, and what its errors mean."""

from __future__ import annotations

import gc

import torch

from caslie_ray.errors import EngineError

__all__ = ["find_devices", "free_memory", "is_fatal", "is_out_of_memory", "limit_memory"]

# Of a share of a GPU; the rest is the CUDA context, which PyTorch's allocator does not count.
_ALLOCATED = 0.95
_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "_alloc_failed")


def find_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is a GPU where there is one.

    Raises:
        EngineError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise EngineError(f"there is no device {name!r}: {error}") from error
    if device.type not in ("cpu", "cuda"):
        raise EngineError(f"device {name!r} is neither a CPU nor a CUDA GPU")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EngineError(f"device {name!r} is not there; CUDA GPUs here: {torch.cuda.device_count()}")
    return device


def find_devices(name: str, gpus: float) -> list[torch.device]:
    """The devices that a model is loaded on: several where it is split over so many GPUs.

    Args:
        name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; only the first three go with several GPUs.
        gpus: GPUs of the replica; below 2 the model is on one device.

    Raises:
        EngineError: there is no such device here, or there are fewer GPUs.
    """
    device = find_device(name)
    count = int(gpus)
    if device.type != "cuda" or count < 2:
        return [device]
    if ":" in name:
        raise EngineError(f"device {name!r} is one GPU, and the model is split over {count}; set device to 'cuda'")
    if torch.cuda.device_count() < count:
        raise EngineError(f"the model is split over {count} GPUs; CUDA GPUs here: {torch.cuda.device_count()}")
    return [torch.device("cuda", number) for number in range(count)]


def limit_memory(device: torch.device, gpus: float) -> None:
    """Keep a replica on a share of a GPU within that share.

    Then it runs out of memory itself, and makes smaller batches, before a neighbour on the card does.

    Args:
        device: where the model is loaded.
        gpus: the share; 0, and 1 or more, set no limit.
    """
    if device.type == "cuda" and 0 < gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus * _ALLOCATED, device.index)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a smaller batch, or another time, may help."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _MEMORY)


def is_fatal(error: Exception) -> bool:
    """Whether the device will answer nothing more in this process, as after a failed CUDA kernel."""
    lost = isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)
    return lost and not is_out_of_memory(error)


def free_memory() -> None:
    """Give back what tensors of a failed or closed model still hold."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
