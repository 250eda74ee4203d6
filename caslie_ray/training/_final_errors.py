"""Classifies a worker's errors: a non-retryable one ends the training."""

from __future__ import annotations

import torch
from ray.train.torch import get_device

from caslie_ray.engines.load_errors import classify
from caslie_ray.engines.trainable import is_out_of_memory
from caslie_ray.errors import EngineError, RunLost
from caslie_ray.tasks import UnknownTask
from caslie_ray.training._errors import TrainingError

__all__ = ["final_error", "others_hold_memory"]

# GPU memory in use outside PyTorch's cache: this process's CUDA context and libraries, and the driver.
_CONTEXT_BYTES = 2 * 2**30


def final_error(error: Exception) -> Exception | None:
    """Return a non-retryable error, worded for the user; None for a retryable one."""
    cause = error.__cause__ if isinstance(error, EngineError) else error
    if isinstance(cause, Exception) and not isinstance(cause, TrainingError) and is_out_of_memory(cause):
        # A process that ended just before, such as the last worker's or a replica's, may not have freed the GPU yet.
        if isinstance(error, EngineError) and not isinstance(cause, MemoryError) and gpu_is_shared():
            return None
        return TrainingError(
            f"a worker ran out of memory outside of a micro-batch (while loading, or in the optimizer): {error}. Use a"
            " larger GPU, training.quantize=4bit, training.shard=true on several, or a lower training.lora.rank"
        )
    if isinstance(error, EngineError):
        return error if classify(error).kind == "final" else None
    return error if isinstance(error, (TrainingError, UnknownTask, RunLost)) else None


def others_hold_memory(free: int, reserved: int, total: int) -> bool:
    """Return whether other processes hold memory of a GPU.

    Args:
        free: free bytes of the GPU.
        reserved: bytes that this process's PyTorch allocator holds.
        total: bytes of the GPU.
    """
    return free + reserved < total - _CONTEXT_BYTES


def gpu_is_shared() -> bool:
    """Return whether other processes hold memory of this worker's GPU; False without a GPU."""
    if not torch.cuda.is_available():
        return False
    device = get_device()
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError:  # not even a CUDA context fits
        return True
    return others_hold_memory(free, torch.cuda.memory_reserved(device), total)
