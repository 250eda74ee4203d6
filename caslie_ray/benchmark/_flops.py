"""FLOP utilization: FLOP/s that the models need, as a fraction of the GPUs' peak."""

from __future__ import annotations

__all__ = ["PEAK_TFLOPS", "peak_flops", "utilisation"]

PEAK_TFLOPS = {
    "H200": 989.0, "H100": 989.0, "H800": 989.0, "A100": 312.0, "A800": 312.0, "L40S": 362.0, "L40": 181.0,
    "L4": 121.0, "A10G": 70.0, "A10": 125.0, "V100": 125.0, "T4": 65.0,
}  # fmt: skip
"""Dense bfloat16 or float16 TFLOP/s of a GPU, by a part of its name; vendor figures, without sparsity."""

_HALF = ("bfloat16", "float16")


def peak_flops(device_name: str, dtype: str) -> float | None:
    """Return the peak FLOP/s of a GPU; None if unknown, or for float32, which has several modes."""
    if dtype not in _HALF:
        return None
    words = device_name.replace("-", " ").split()
    found = next((tflops for name, tflops in PEAK_TFLOPS.items() if name in words), None)
    return None if found is None else found * 1e12


def utilisation(
    parameters: float, tokens_per_s: float, peak: float | None, gpus: float, passes: float = 2.0
) -> float | None:
    """Return the fraction of the peak that a model uses.

    Args:
        parameters: number of parameters.
        tokens_per_s: prompt and generated tokens per second.
        peak: FLOP/s of one GPU; None if unknown.
        gpus: number of GPUs.
        passes: operations per parameter and token: 2 for a forward pass, 4 for training an adapter on a frozen base.
    """
    if peak is None or not gpus:
        return None
    return passes * parameters * tokens_per_s / (peak * gpus)
