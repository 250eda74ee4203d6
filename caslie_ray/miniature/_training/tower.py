"""Pretrains the captioner's vision tower as a classifier of drawings."""

from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionTransformer

from caslie_ray.miniature._training.loop import Plan, fit
from caslie_ray.miniature._training.pixels import TILE, pixels_of
from caslie_ray.miniature.catalogue import ATTRIBUTES, CATEGORIES, VALUES, Combinations, random_look
from caslie_ray.miniature.drawing import Kind, Picture, draw_picture, encode, silhouette

__all__ = ["TOWER", "Tower", "accuracy", "train_tower", "vision_config"]

_IGNORED = -100
_MASK_WEIGHT = 5.0
TOWER = Plan(steps=3000, batch=64, rate=2e-3)
_PATCH = 8
_SIDE = TILE // _PATCH


def vision_config() -> Idefics3VisionConfig:
    """Return the tower's configuration: SigLIP with three layers, 8 x 8 pixel patches, 64-pixel tiles."""
    return Idefics3VisionConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
        image_size=TILE, patch_size=_PATCH, num_channels=3,
    )  # fmt: skip


class Tower(nn.Module):
    """A vision tower with one classifier per attribute; the category has an additional class for "no product".

    Its input is the entire image at tile size: classifying from all five tiles costs a fifth of the category's
    accuracy, since a quarter of a product rarely identifies it. It also predicts the product's silhouette, which
    separates shapes from patterns: the category is learned in a quarter of the steps.
    """

    def __init__(self, config: Idefics3VisionConfig) -> None:
        super().__init__()
        self.vision = Idefics3VisionTransformer(config)
        sizes = [len(VALUES[name]) + (name == "category") for name in ATTRIBUTES]
        self.heads = nn.ModuleList(nn.Linear(config.hidden_size, size) for size in sizes)
        self.mask = nn.Linear(config.hidden_size, _PATCH * _PATCH)

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return logits of each attribute (n, values) and of the silhouette (n, patches, pixels per patch).

        Args:
            pixels: images of shape (n, 3, 64, 64).
        """
        patches = self.vision(pixel_values=pixels).last_hidden_state
        pooled = patches.mean(1)
        return [head(pooled) for head in self.heads], self.mask(patches)


class _Drawn(NamedTuple):
    pixels: Tensor  # (n, 3, 64, 64)
    labels: Tensor  # (n, attributes)
    masks: Tensor  # (n, patches, pixels per patch), in [0, 1]


def _patches_of(mask: Image.Image) -> NDArray[np.float32]:
    pixels = np.asarray(mask.resize((TILE, TILE), Image.Resampling.BOX), np.float32) / 255
    patches = pixels.reshape(_SIDE, _PATCH, _SIDE, _PATCH).swapaxes(1, 2).reshape(_SIDE * _SIDE, _PATCH * _PATCH)
    return patches.astype(np.float32, copy=False)


def _draw(rng: Random, count: int, *, combinations: Combinations) -> _Drawn:
    images, labels, masks = [], [], []
    for _ in range(count):
        look = random_look(rng, CATEGORIES, combinations=combinations)
        chance = rng.random()
        if chance < 0.85:
            picture = Picture("informative", look, look, rng.getrandbits(32))
            labels.append([VALUES[name].index(look.value(name)) for name in ATTRIBUTES])
        else:
            kind: Kind = "placeholder" if chance < 0.9 else "blurred"
            picture = Picture(kind, look, None, rng.getrandbits(32))
            labels.append([len(CATEGORIES)] + [_IGNORED] * (len(ATTRIBUTES) - 1))
        images.append(pixels_of(encode(draw_picture(picture)))[-1])
        masks.append(_patches_of(silhouette(picture)))
    return _Drawn(torch.from_numpy(np.stack(images)), torch.tensor(labels), torch.from_numpy(np.stack(masks)))


def _loss(tower: Tower, rng: Random, plan: Plan) -> Tensor:
    drawn = _draw(rng, plan.batch, combinations="seen")
    logits, mask = tower(drawn.pixels)
    loss = _MASK_WEIGHT * nn.functional.binary_cross_entropy_with_logits(mask, drawn.masks)
    for i, logit in enumerate(logits):
        loss = loss + nn.functional.cross_entropy(logit, drawn.labels[:, i], ignore_index=_IGNORED)
    return loss


def train_tower(plan: Plan, seed: int, work: Path) -> Tower:
    """Train a tower, or resume from the folder `work`."""
    torch.manual_seed(seed)
    tower = Tower(vision_config())
    fit("tower", tower, plan, lambda rng, _: _loss(tower, rng, plan), seed=seed, state=work / "tower.pt")
    return tower


@torch.inference_mode()
def accuracy(tower: Tower, seed: int, count: int) -> dict[str, float]:
    """Return the accuracy by attribute on new drawings, including held-out combinations."""
    tower.eval()
    drawn = _draw(Random(seed), count, combinations="all")
    logits, _ = tower(drawn.pixels)
    result = {}
    for i, name in enumerate(ATTRIBUTES):
        known = drawn.labels[:, i] != _IGNORED
        result[name] = float((logits[i].argmax(1) == drawn.labels[:, i])[known].float().mean())
    return result
