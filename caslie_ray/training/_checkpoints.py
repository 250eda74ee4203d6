"""Saves and loads adapters and training checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from caslie_ray.training._adapter import trained_parameters
from caslie_ray.training._errors import TrainingError

__all__ = ["folder_of", "load_checkpoint", "save_adapter", "save_checkpoint"]

_WEIGHTS, _OPTIMIZER, _STATE = "adapter.safetensors", "optimizer.pt", "state.json"


def save_adapter(model: Any, folder: Path, about: dict[str, str]) -> None:
    """Write a PEFT adapter without weights of its base, which vLLM would refuse.

    Args:
        model: a model with an adapter.
        folder: an existing folder.
        about: written next to it as `caslie.json`.
    """
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "caslie.json").write_text(json.dumps(about, indent=2) + "\n")


def save_checkpoint(model: Any, optimizer: torch.optim.Optimizer, folder: Path, state: dict[str, Any]) -> None:
    """Write what resuming needs: adapter, optimizer state, and the state of the loop.

    No random state is saved: dropout is a function of seed and step.

    Args:
        model: a model with an adapter.
        optimizer: its optimizer.
        folder: an existing folder.
        state: `base`, `folder` (the model's), `step` (steps done), and the rest of the loop's state.
    """
    save_file({name: value.detach().cpu().contiguous() for name, value in trained_parameters(model)}, folder / _WEIGHTS)
    torch.save(optimizer.state_dict(), folder / _OPTIMIZER)
    (folder / _STATE).write_text(json.dumps(state))


def folder_of(checkpoint: Path) -> str:
    """Return the folder, in the run, of a checkpoint's model."""
    return str(json.loads((checkpoint / _STATE).read_text())["folder"])


def load_checkpoint(model: Any, optimizer: torch.optim.Optimizer, folder: Path, base: str) -> dict[str, Any]:
    """Load a checkpoint into model and optimizer; return the state of the loop.

    Raises:
        TrainingError: it is of another base, or of an adapter with other modules.
    """
    state: dict[str, Any] = json.loads((folder / _STATE).read_text())
    if state["base"] != base:
        raise TrainingError(
            f"checkpoint {folder} is of the base {state['base']}, and {base} is to be trained: use another run, or the"
            " profile that it was started with"
        )
    mine = dict(trained_parameters(model))
    with safe_open(folder / _WEIGHTS, framework="pt") as file:
        names = set(file.keys())
        if names != set(mine):
            differing = sorted(names ^ set(mine))[0]
            raise TrainingError(
                f"checkpoint {folder} is of another adapter: they differ in {differing}; use another run"
            )
        with torch.no_grad():
            for name, parameter in mine.items():
                parameter.copy_(file.get_tensor(name))
    device = next(iter(mine.values())).device
    optimizer.load_state_dict(torch.load(folder / _OPTIMIZER, map_location=device, weights_only=True))
    return state
