"""LoRA adapters on disk: validation and shape, without loading them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from caslie_ray.engines.spec import LoraShape
from caslie_ray.errors import EngineError

__all__ = ["Adapter", "joint_shape", "read_adapters"]

_STARTS = (True, False, None, "gaussian", "orthogonal")
_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


class Adapter(NamedTuple):
    """A LoRA adapter saved by PEFT.

    Attributes:
        path: its folder.
        rank: the largest rank of its matrices.
        targets: names of the modules that it adapts, sorted.
    """

    path: str
    rank: int
    targets: tuple[str, ...]

    @property
    def lora(self) -> LoraShape:
        """Its target modules and rank."""
        return LoraShape(self.targets, self.rank)

    def changes_answers(self) -> bool:
        """Return whether any of its B matrices differs from its initial value, zero."""
        with safe_open(Path(self.path) / _WEIGHTS, framework="pt") as weights:
            return any(bool(weights.get_tensor(key).any()) for key in weights.keys() if "lora_B" in key)  # noqa: SIM118


def read_adapters(folders: Mapping[str, str]) -> dict[str, Adapter]:
    """Read the shapes of adapters without loading them.

    Raises:
        EngineError: a folder holds no LoRA adapter in safetensors; the message names it.
    """
    return {name: _read(name, Path(folder).expanduser()) for name, folder in folders.items()}


def joint_shape(adapters: Collection[Adapter]) -> LoraShape | None:
    """Return the union of the adapters' target modules and their largest rank; None without adapters."""
    if not adapters:
        return None
    targets = {target for adapter in adapters for target in adapter.targets}
    return LoraShape(tuple(sorted(targets)), max(adapter.rank for adapter in adapters))


def _read(name: str, folder: Path) -> Adapter:
    for needed in (_CONFIG, _WEIGHTS):
        if not (folder / needed).is_file():
            raise EngineError(f"adapter {name}: {folder} has no {needed}; save it with PEFT's save_pretrained")
    try:
        config = json.loads((folder / _CONFIG).read_text())
        kind, ranks = config["peft_type"], [config["r"], *(config.get("rank_pattern") or {}).values()]
        bias, start = config.get("bias", "none"), config.get("init_lora_weights", True)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"adapter {name}: {folder / _CONFIG} cannot be read: {error!r}") from error
    if kind != "LORA":
        raise EngineError(f"adapter {name}: {folder} has peft_type {kind}, and only LORA is supported")
    if bias != "none" or start not in _STARTS:
        raise EngineError(
            f"adapter {name}: {folder} changes weights of its base (bias {bias}, init_lora_weights {start}), so the"
            " base would answer differently without the adapter; train it with bias none and an initialization that"
            " does not change the base"
        )
    return Adapter(str(folder), max(ranks), _targets(name, folder / _WEIGHTS))


def _targets(name: str, weights: Path) -> tuple[str, ...]:
    """Return the modules in the weights; the config's `target_modules` may name some that the base does not have."""
    try:
        with safe_open(weights, framework="pt") as tensors:
            modules = {key.partition(".lora_")[0] for key in tensors.keys() if ".lora_" in key}  # noqa: SIM118
    except SafetensorError as error:
        raise EngineError(f"adapter {name}: {weights} cannot be read: {error}") from error
    return tuple(sorted({module.rpartition(".")[2] for module in modules}))
