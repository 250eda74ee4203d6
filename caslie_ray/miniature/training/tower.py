"""Teaches the captioner's vision tower what drawings show, before it meets any language."""

from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionTransformer

from caslie_ray.miniature.catalogue import ATTRIBUTES, CATEGORIES, VALUES, random_look
from caslie_ray.miniature.drawing import Kind, Picture, draw_picture, encode
from caslie_ray.miniature.training.loop import Plan, fit
from caslie_ray.miniature.training.pixels import TILE, pixels_of

__all__ = ["Tower", "TowerPlan", "accuracy", "train_tower", "vision_config"]

_IGNORED = -100
_WHOLE = Plan(steps=2400, batch=64, rate=2e-3)
_AGAIN = Plan(steps=700, batch=64, rate=1e-3)


@dataclass(frozen=True, slots=True)
class TowerPlan:
    """Two phases on whole images at tile size, the second from a lower rate. (Classifying from all five tiles
    was tried instead and cost a fifth of the category's accuracy: a quarter of a product names none.)"""

    whole: Plan = _WHOLE
    again: Plan = _AGAIN


def vision_config() -> Idefics3VisionConfig:
    """The tower's shape: a SigLIP of three layers over 8 x 8 patches of a 64-pixel tile."""
    return Idefics3VisionConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        image_size=TILE, patch_size=8, num_channels=3,
    )  # fmt: skip


class Tower(nn.Module):
    """A vision tower with one classifier an attribute; the category has one class more, for "no product"."""

    def __init__(self, config: Idefics3VisionConfig) -> None:
        super().__init__()
        self.vision = Idefics3VisionTransformer(config)
        sizes = [len(VALUES[name]) + (name == "category") for name in ATTRIBUTES]
        self.heads = nn.ModuleList(nn.Linear(config.hidden_size, size) for size in sizes)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Logits of each attribute for whole images (n, 3, 64, 64), from the mean over patches."""
        pooled = self.vision(pixel_values=pixels).last_hidden_state.mean(1)
        return [head(pooled) for head in self.heads]


def _draw(rng: Random, count: int, *, seen_only: bool) -> tuple[list[NDArray[np.float32]], Tensor]:
    images, labels = [], []
    for _ in range(count):
        look = random_look(rng, CATEGORIES, seen_only=seen_only)
        chance = rng.random()
        if chance < 0.85:
            picture = Picture("informative", look, look, rng.getrandbits(32))
            labels.append([VALUES[name].index(look.value(name)) for name in ATTRIBUTES])
        else:
            kind: Kind = "placeholder" if chance < 0.9 else "blurred"
            picture = Picture(kind, look, None, rng.getrandbits(32))
            labels.append([len(CATEGORIES)] + [_IGNORED] * (len(ATTRIBUTES) - 1))
        images.append(pixels_of(encode(draw_picture(picture)))[-1])
    return images, torch.tensor(labels)


def _loss(tower: Tower, rng: Random, plan: Plan) -> Tensor:
    images, labels = _draw(rng, plan.batch, seen_only=True)
    logits = tower(torch.from_numpy(np.stack(images)))
    losses = [nn.functional.cross_entropy(logit, labels[:, i], ignore_index=_IGNORED) for i, logit in enumerate(logits)]
    return torch.stack(losses).sum()


def train_tower(plan: TowerPlan, seed: int, work: Path) -> Tower:
    """Train a tower, or go on with the one in the folder `work`."""
    torch.manual_seed(seed)
    tower = Tower(vision_config())
    for name, phase in (("tower-whole", plan.whole), ("tower-again", plan.again)):

        def loss_of(rng: Random, phase: Plan = phase) -> Tensor:
            return _loss(tower, rng, phase)

        fit(name, tower, tower.parameters(), phase, loss_of, seed=seed, state=work / f"{name}.pt")
    return tower


@torch.inference_mode()
def accuracy(tower: Tower, seed: int, count: int) -> dict[str, float]:
    """Share of fresh drawings (held-out combinations too) whose attribute the tower names, by attribute."""
    tower.eval()
    images, labels = _draw(Random(seed), count, seen_only=False)
    logits = tower(torch.from_numpy(np.stack(images)))
    result = {}
    for i, name in enumerate(ATTRIBUTES):
        known = labels[:, i] != _IGNORED
        result[name] = float((logits[i].argmax(1) == labels[:, i])[known].float().mean())
    return result
