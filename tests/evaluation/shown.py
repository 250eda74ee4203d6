"""Made-up views for the report page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from caslie_ray.evaluation.report.shown import ShownTruth, ShownView, ShownVote

HOSTILE = '</script><img src=x onerror="window.harm=1"><script>window.harm=1</script> {{css}} &lt; \u2028 <!--<b>bold'


def photo(seed: int, side: int = 200) -> bytes:
    """A JPEG with gradients, an edge and sensor noise, as in photos."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    pixels = np.asarray(coarse).astype(np.int16)
    pixels[side // 3 :, side // 4 : side // 2] //= 2
    pixels += rng.integers(-12, 13, pixels.shape, dtype=np.int16)
    return encoded(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))


def encoded(image: Image.Image, kind: str = "JPEG") -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind)
    return sink.getvalue()


def votes(*shares: float | None) -> tuple[ShownVote, ...]:
    """Votes of as many voters; None is one that failed."""
    return tuple(
        ShownVote(f"voter-{number}", None, None, "out of memory")
        if share is None
        else ShownVote(f"voter-{number}", "yes" if share > 0.5 else "no", share, None)
        for number, share in enumerate(shares)
    )


def truth(helps: bool, usefulness: str = "useful", kind: str = "informative") -> ShownTruth:
    shown = {"informative": "red hammer by Norde", "wrong": "blue mug by Kivo"}.get(kind)
    return ShownTruth(usefulness, kind, "red hammer by Norde", shown, ("colour", "brand"), ("colour",), helps)


def view(name: str, cast: Sequence[float | None] = (0.9, 0.8, 0.7), **changes: Any) -> ShownView:
    valid = [share for share in cast if share is not None]
    verdict = 2 * sum(share > 0.5 for share in valid) > len(valid)
    texts = f"context of {name}", f"caption of {name}"
    base = ShownView(name, f"image-{name}", "AP", ("ind",), *texts, votes(*cast), verdict, None, None)
    return replace(base, **changes)


def many(count: int) -> list[ShownView]:
    """Views of all kinds, so that every filter selects a different set."""
    rng = np.random.default_rng(7)
    found = []
    for number in range(count):
        cast = [float(share) for share in rng.random(3 if number % 4 else 2).round(3)]
        if number % 11 == 0:
            cast[0] = 0.5
        kind = ("informative", "placeholder", "blurred", "wrong")[number % 4]
        known = truth(bool(rng.random() < 0.5), ("useful", "useless", "misleading")[number % 3], kind)
        one = view(
            f"v{number:04d}",
            cast,
            task=("AP", "CC", "SR")[number % 3],
            splits=(("ind",), ("ood",), ("ind", "train"))[number % 5 % 3],
            caption=f"A {('red', 'Blue', 'green')[number % 3]} {('hammer', 'mug')[number % 2]}, number {number}.",
            truth=known,
        )
        if number % 13 == 0:
            silent = replace(known, helps=False)
            one = replace(one, caption=None, votes=(), verdict=False, error="the captioner failed", truth=silent)
        found.append(one)
    return found


def is_wrong(one: ShownView) -> bool:
    return one.truth is not None and one.verdict != one.truth.helps
