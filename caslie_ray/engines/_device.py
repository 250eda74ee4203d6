"""Devices: selection, memory limits, and classification of their errors."""

from __future__ import annotations

import gc

import torch

from caslie_ray.errors import EngineError

__all__ = ["find_devices", "free_memory", "is_fatal", "is_out_of_memory", "limit_memory"]

# Fraction of a GPU share for PyTorch's allocator, which does not count the CUDA context.
_ALLOCATED = 0.95
_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "_alloc_failed")


def find_device(name: str) -> torch.device:
    """Return the device of that name; ``auto`` is a GPU if there is one.

    Raises:
        EngineError: this machine has no such device.
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
    """Return the devices that a model is loaded on: several if it is split over GPUs.

    Args:
        name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; the last one is a single GPU.
        gpus: GPUs of the replica; below 2 the model is on one device.

    Raises:
        EngineError: this machine has no such device, or fewer GPUs.
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
    """Limit the memory of a replica on a share of a GPU.

    Without a limit, a replica that grows would make others on the same GPU run out of memory, not itself.

    Args:
        device: where the model is loaded.
        gpus: the share; no limit for 0, or 1 and more.
    """
    if device.type == "cuda" and 0 < gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus * _ALLOCATED, device.index)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error is a lack of memory, so that a smaller batch or a retry may help."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _MEMORY)


def is_fatal(error: Exception) -> bool:
    """Return whether the device is unusable in this process, for example after a failed CUDA kernel."""
    lost = isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error)
    return lost and not is_out_of_memory(error)


def free_memory() -> None:
    """Release cached memory of a failed batch or a closed model."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
