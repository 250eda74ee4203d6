"""Silhouettes of the categories, as shapes in the unit square (x to the right, y down)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from PIL import ImageDraw

__all__ = ["SHAPES", "Box", "Part", "paint"]

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a silhouette: the points of a polygon, or the box of an ellipse or ring.

    `hole` removes the part from those before it; `width` is the line width of a ring or line.
    """

    kind: Literal["polygon", "ellipse", "ring", "line"]
    points: tuple[float, ...]
    hole: bool = False
    width: float = 0.09


def _polygon(*points: float, hole: bool = False) -> Part:
    return Part("polygon", points, hole)


def _box(x0: float, y0: float, x1: float, y1: float, hole: bool = False) -> Part:
    return Part("polygon", (x0, y0, x1, y0, x1, y1, x0, y1), hole)


def _ellipse(x0: float, y0: float, x1: float, y1: float, hole: bool = False) -> Part:
    return Part("ellipse", (x0, y0, x1, y1), hole)


def _ring(x0: float, y0: float, x1: float, y1: float, width: float = 0.09) -> Part:
    return Part("ring", (x0, y0, x1, y1), width=width)


def _line(*points: float, width: float = 0.09) -> Part:
    return Part("line", points, width=width)


SHAPES: dict[str, tuple[Part, ...]] = {
    "hammer": (_box(0.41, 0.2, 0.59, 1), _box(0.08, 0, 0.92, 0.28)),
    "toolbox": (_box(0, 0.35, 1, 1), _box(0.25, 0.1, 0.75, 0.2), _box(0.25, 0.1, 0.34, 0.4),
                _box(0.66, 0.1, 0.75, 0.4)),
    "mug": (_ring(0.5, 0.25, 1, 0.8, 0.11), _box(0, 0.1, 0.7, 1)),
    "kettle": (_ring(0.25, 0, 0.75, 0.6, 0.08), _ellipse(0.12, 0.28, 0.88, 1),
               _polygon(0.75, 0.6, 1, 0.3, 1, 0.45, 0.8, 0.8)),
    "ladder": (_box(0.12, 0, 0.26, 1), _box(0.74, 0, 0.88, 1),
               *(_box(0.12, y, 0.88, y + 0.1) for y in (0.1, 0.34, 0.58, 0.82))),
    "bucket": (_ring(0.1, 0, 0.9, 0.75, 0.06), _polygon(0, 0.32, 1, 0.32, 0.8, 1, 0.2, 1)),
    "lamp": (_polygon(0.3, 0, 0.7, 0, 1, 0.48, 0, 0.48), _box(0.44, 0.48, 0.56, 1), _box(0.2, 0.88, 0.8, 1)),
    "plug": (_box(0.22, 0, 0.36, 0.35), _box(0.64, 0, 0.78, 0.35), _ellipse(0.05, 0.28, 0.95, 0.82),
             _box(0.42, 0.7, 0.58, 1)),
    "shovel": (_box(0.3, 0, 0.7, 0.12), _box(0.43, 0, 0.57, 0.6),
               _polygon(0.2, 0.52, 0.8, 0.52, 0.8, 0.78, 0.5, 1, 0.2, 0.78)),
    "barrow": (_polygon(0, 0.3, 0.72, 0.3, 0.6, 0.66, 0.15, 0.66), _line(0.6, 0.38, 1, 0.22, width=0.09),
               _ellipse(0.05, 0.64, 0.42, 1), _box(0.55, 0.6, 0.65, 1)),
    "funnel": (_polygon(0, 0.05, 1, 0.05, 0.58, 0.55, 0.58, 1, 0.42, 1, 0.42, 0.55),),
    "bottle": (_box(0.4, 0, 0.6, 0.35),
               _polygon(0.4, 0.25, 0.6, 0.25, 0.74, 0.42, 0.74, 1, 0.26, 1, 0.26, 0.42)),
    "padlock": (_ring(0.2, 0, 0.8, 0.85, 0.13), _box(0.08, 0.45, 0.92, 1),
                _ellipse(0.42, 0.6, 0.58, 0.78, hole=True)),
    "key": (_ring(0, 0.28, 0.46, 0.74, 0.14), _box(0.4, 0.44, 1, 0.58), _box(0.68, 0.55, 0.78, 0.76),
            _box(0.88, 0.55, 0.98, 0.76)),
    "ball": (_ellipse(0, 0, 1, 1),),
    "racket": (_ring(0.18, 0, 0.82, 0.68, 0.1), _line(0.5, 0.05, 0.5, 0.62, width=0.05),
               _line(0.22, 0.34, 0.78, 0.34, width=0.05), _box(0.43, 0.64, 0.57, 1)),
    "helmet": (_ellipse(0.02, 0.1, 0.98, 1.3), _box(0, 0.72, 1, 1.4, hole=True), _box(0.02, 0.64, 1, 0.76)),
    "skate": (_polygon(0.05, 0, 0.42, 0, 0.48, 0.36, 0.92, 0.48, 0.92, 0.7, 0.05, 0.7),
              _box(0.16, 0.66, 0.24, 0.9), _box(0.7, 0.66, 0.78, 0.9), _box(0, 0.87, 1, 0.97)),
    "tent": (_polygon(0.5, 0.05, 1, 1, 0, 1), _polygon(0.5, 0.5, 0.68, 1, 0.32, 1, hole=True)),
    "backpack": (_ring(0.33, 0, 0.67, 0.35, 0.08), _ellipse(0.12, 0.1, 0.88, 0.6), _box(0.12, 0.35, 0.88, 1),
                 _box(0, 0.5, 0.09, 0.9), _box(0.91, 0.5, 1, 0.9), _box(0.28, 0.62, 0.72, 0.66, hole=True)),
    "dumbbell": (_box(0.2, 0.43, 0.8, 0.57), _box(0, 0.28, 0.14, 0.72), _box(0.14, 0.15, 0.27, 0.85),
                 _box(0.73, 0.15, 0.86, 0.85), _box(0.86, 0.28, 1, 0.72)),
    "medal": (_polygon(0.15, 0, 0.4, 0, 0.58, 0.5, 0.42, 0.5),
              _polygon(0.6, 0, 0.85, 0, 0.58, 0.5, 0.42, 0.5),
              _ellipse(0.2, 0.4, 0.8, 1)),
}  # fmt: skip


def paint(draw: ImageDraw.ImageDraw, parts: Sequence[Part], box: Box, fill: int) -> None:
    """Paint a silhouette into `box` (pixels x0, y0, x1, y1) with `fill`, its holes with 0."""
    x0, y0, width, height = box[0], box[1], box[2] - box[0], box[3] - box[1]
    for part in parts:
        points = [
            (x0 + width * part.points[i], y0 + height * part.points[i + 1]) for i in range(0, len(part.points), 2)
        ]
        value = 0 if part.hole else fill
        thick = max(1, round(width * part.width))
        if part.kind == "polygon":
            draw.polygon(points, fill=value)
        elif part.kind == "ellipse":
            draw.ellipse([points[0], points[1]], fill=value)
        elif part.kind == "ring":
            draw.ellipse([points[0], points[1]], outline=value, width=thick)
        else:
            draw.line(points, fill=value, width=thick)
