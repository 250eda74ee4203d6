import io
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from caslie_ray.miniature._shapes import SHAPES, paint
from caslie_ray.miniature.catalogue import CATEGORIES, Look
from caslie_ray.miniature.drawing import SIDE, Kind, Picture, draw_picture, encode

LOOK = Look("kettle", "blue", "dotted", "large", "Zenta")
OTHER = Look("ladder", "red", "plain", "small", "Norde")


def _picture(kind: Kind, seed: int = 5) -> Picture:
    return Picture(kind, LOOK, {"informative": LOOK, "wrong": OTHER}.get(kind), seed)


@pytest.mark.parametrize("kind", ["informative", "placeholder", "blurred", "wrong"])
def test_a_picture_is_drawn_the_same_way_every_time(kind: Kind) -> None:
    first, again = encode(draw_picture(_picture(kind))), encode(draw_picture(_picture(kind)))
    assert first == again
    assert first != encode(draw_picture(_picture(kind, seed=6)))
    decoded = Image.open(io.BytesIO(first))
    assert (decoded.size, decoded.mode) == ((SIDE, SIDE), "RGB")


def test_a_wrong_picture_shows_the_other_product() -> None:
    wrong = draw_picture(_picture("wrong"))
    assert wrong.tobytes() == draw_picture(Picture("informative", OTHER, OTHER, 5)).tobytes()


def test_a_blurred_picture_has_lost_its_edges() -> None:
    def sharpness(kind: Kind) -> float:
        pixels = np.asarray(draw_picture(_picture(kind)).convert("L").resize((32, 32))).astype(float)
        return float(np.abs(np.diff(pixels)).mean())

    assert sharpness("blurred") < sharpness("informative") / 2


def test_no_two_silhouettes_are_alike() -> None:
    masks = []
    for name in CATEGORIES:
        mask = Image.new("L", (40, 40))
        paint(ImageDraw.Draw(mask), SHAPES[name], (0, 0, 39, 39), 1)
        masks.append(np.asarray(mask).astype(bool))
    for i, one in enumerate(masks):
        for other in masks[:i]:
            assert (one & other).sum() / (one | other).sum() < 0.85


def test_drawn_colours_match_their_names() -> None:
    rng = Random(0)
    for colour, channel in (("red", 0), ("blue", 2)):
        look = Look("ball", colour, "plain", "large", "Kivo")
        pixels = np.asarray(draw_picture(Picture("informative", look, look, rng.getrandbits(32))))
        assert pixels[56:72, 56:72].mean((0, 1)).argmax() == channel
