"""The device a model runs on, and what its errors mean."""

from __future__ import annotations

import gc

import torch

from caslie_ray.engines.base import EngineError

__all__ = ["find_device", "free_memory", "is_fatal", "is_out_of_memory"]

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
