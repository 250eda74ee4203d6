"""Draws product images: 128 x 128 pixels, a silhouette filled with a coloured pattern and a brand mark.

There are four kinds of images: `informative` shows the product, `placeholder` is a shop's "no image available" tile,
`blurred` is blurred beyond recognition, `wrong` shows another product.
"""

import io
from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from caslie_ray.miniature._shapes import SHAPES, paint
from caslie_ray.miniature.catalogue import COLOURS, Look

__all__ = ["KINDS", "SIDE", "Kind", "Picture", "draw_look", "draw_picture", "encode", "silhouette"]

Kind = Literal["informative", "placeholder", "blurred", "wrong"]
KINDS: tuple[Kind, ...] = ("informative", "placeholder", "blurred", "wrong")
SIDE = 128
_MARK = 30  # side of the brand mark's badge


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of a product: `product` is the truth, `shown` what is drawn (None: nothing)."""

    kind: Kind
    product: Look
    shown: Look | None
    seed: int


def _texture(look: Look, rng: Random) -> Image.Image:
    base = tuple(max(0, min(255, value + rng.randint(-18, 18))) for value in COLOURS[look.colour])
    other = tuple(min(255, v + 110) if sum(base) < 450 else max(0, v - 120) for v in base)
    texture = Image.new("RGB", (SIDE, SIDE), base)
    draw = ImageDraw.Draw(texture)
    step = rng.randint(11, 14)
    start = rng.randint(-step, 0)
    lines = range(start, SIDE, step)
    if look.pattern == "striped":
        for y in lines:
            draw.rectangle([0, y, SIDE, y + step // 2 - 1], fill=other)
    elif look.pattern == "dotted":
        for y in lines:
            for x in lines:
                draw.ellipse([x, y, x + step // 2, y + step // 2], fill=other)
    elif look.pattern == "checked":
        for row, y in enumerate(lines):
            for column, x in enumerate(lines):
                if (row + column) % 2:
                    draw.rectangle([x, y, x + step - 1, y + step - 1], fill=other)
    return texture


def _draw_mark(draw: ImageDraw.ImageDraw, brand: str, x: int, y: int) -> None:
    """Draw a white badge with the brand's sign: Norde a triangle, Kivo a ring, Borel a cross, Zenta bars."""
    draw.rectangle([x, y, x + _MARK, y + _MARK], fill=(255, 255, 255), outline=(20, 20, 20), width=2)
    ink, low, high, middle = (20, 20, 20), 7, _MARK - 7, _MARK // 2
    if brand == "Norde":
        draw.polygon([(x + middle, y + low), (x + high, y + high), (x + low, y + high)], fill=ink)
    elif brand == "Kivo":
        draw.ellipse([x + low, y + low, x + high, y + high], outline=ink, width=4)
    elif brand == "Borel":
        draw.rectangle([x + middle - 2, y + low, x + middle + 2, y + high], fill=ink)
        draw.rectangle([x + low, y + middle - 2, x + high, y + middle + 2], fill=ink)
    else:
        draw.rectangle([x + low, y + low, x + low + 4, y + high], fill=ink)
        draw.rectangle([x + high - 4, y + low, x + high, y + high], fill=ink)


def _finish(image: Image.Image, rng: Random) -> Image.Image:
    """Add sensor noise, so that no two drawings of one look are equal."""
    noise = np.random.default_rng(rng.getrandbits(32)).integers(-7, 8, (SIDE, SIDE, 3), dtype=np.int16)
    pixels = np.asarray(image).astype(np.int16) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _ground(rng: Random) -> tuple[int, int, int]:
    return rng.randint(215, 255), rng.randint(215, 255), rng.randint(215, 255)


def _place(look: Look, rng: Random) -> tuple[int, int, int]:
    share = rng.uniform(0.48, 0.56) if look.size == "small" else rng.uniform(0.72, 0.82)
    side = round(SIDE * share)
    return rng.randint(3, SIDE - side - 3), rng.randint(3, SIDE - side - 3), side


def _mask(look: Look, x: int, y: int, side: int) -> Image.Image:
    mask = Image.new("L", (SIDE, SIDE), 0)
    paint(ImageDraw.Draw(mask), SHAPES[look.category], (x, y, x + side, y + side), 255)
    return mask


def silhouette(picture: Picture) -> Image.Image:
    """Return the mask of the product in an image: 255 inside and 0 outside (mode L, 128 x 128)."""
    if picture.shown is None:
        return Image.new("L", (SIDE, SIDE), 0)
    rng = Random(picture.seed)
    _ground(rng)
    return _mask(picture.shown, *_place(picture.shown, rng))


def draw_look(look: Look, rng: Random) -> Image.Image:
    """Draw a product at a random position on a light background, with its brand mark, if any, in a corner.

    Small products take about half of the side, large ones about four fifths.
    """
    image = Image.new("RGB", (SIDE, SIDE), _ground(rng))
    x, y, side = _place(look, rng)
    image.paste(_texture(look, rng), (0, 0), _mask(look, x, y, side))
    if look.brand:
        # The corner farthest from the product, so that the mark hides as little of it as possible.
        right, low = x + side / 2 < SIDE / 2, y + side / 2 < SIDE / 2
        edge = SIDE - _MARK - 2
        _draw_mark(ImageDraw.Draw(image), look.brand, edge if right else 1, edge if low else 1)
    return _finish(image, rng)


def _draw_placeholder(rng: Random) -> Image.Image:
    shade = rng.randint(200, 250)
    ink = (shade - rng.randint(50, 90),) * 3
    image = Image.new("RGB", (SIDE, SIDE), (shade, shade, shade))
    draw = ImageDraw.Draw(image)
    left, top = rng.randint(22, 34), rng.randint(16, 28)
    right, low = SIDE - left, top + 56
    draw.rectangle([left, top, right, low], outline=ink, width=3)
    draw.line([left, low, right, top], fill=ink, width=3)
    draw.line([left, top, right, low], fill=ink, width=3)
    draw.text((SIDE / 2, low + 16), "NO IMAGE", fill=ink, anchor="mm")
    draw.text((SIDE / 2, low + 29), "AVAILABLE", fill=ink, anchor="mm")
    return _finish(image, rng)


def draw_picture(picture: Picture) -> Image.Image:
    """Draw an image: RGB, 128 x 128, deterministic."""
    rng = Random(picture.seed)
    if picture.shown is not None:
        return draw_look(picture.shown, rng)
    if picture.kind == "placeholder":
        return _draw_placeholder(rng)
    sharp = draw_look(picture.product, rng)
    return _finish(sharp.filter(ImageFilter.GaussianBlur(rng.uniform(13, 18))), rng)


def encode(image: Image.Image) -> bytes:
    """Encode as JPEG, the format in which drawings are stored and trained on."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=92, subsampling=0)
    return buffer.getvalue()
