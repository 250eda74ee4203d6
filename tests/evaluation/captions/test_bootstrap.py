from __future__ import annotations

import math
from random import Random

import pytest

from caslie_ray.evaluation.captions.bootstrap import Bootstrap
from caslie_ray.evaluation.captions.sums import Sums
from caslie_ray.hashing import content_id


def _coins(images: int, share: float, views: int = 1) -> Sums:
    """Sums of `views` equal coin tosses on each of some images."""
    rng, sums = Random(1), Sums()
    for i in range(images):
        heads = rng.random() < share
        for _ in range(views):
            sums.add("tosses", content_id(str(i)))
            sums.add("heads", content_id(str(i)), heads)
    return sums


def test_a_rate_is_within_its_interval_which_has_the_theoretical_width() -> None:
    found = Bootstrap(_coins(900, 0.3), 1000).rate("heads", "tosses")
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert found.n == 900
    expected = 2 * 1.96 * math.sqrt(found.value * (1 - found.value) / 900)
    assert found.high - found.low == pytest.approx(expected, rel=0.2)


def test_views_of_one_image_are_not_independent() -> None:
    alone = Bootstrap(_coins(400, 0.5), 800).rate("heads", "tosses")
    together = Bootstrap(_coins(400, 0.5, views=9), 800).rate("heads", "tosses")
    assert None not in (*alone, *together)
    assert together.value == alone.value
    assert together.high == pytest.approx(alone.high)
    assert together.low == pytest.approx(alone.low)


def test_the_same_sums_give_the_same_interval() -> None:
    sums = _coins(100, 0.5)
    assert Bootstrap(sums, 200).rate("heads", "tosses") == Bootstrap(sums, 200).rate("heads", "tosses")


def test_partitions_add_up() -> None:
    one, other = _coins(60, 0.5), _coins(60, 0.5)
    one.merge(other)
    assert one.total("tosses") == 120
    assert one.total("heads") == 2 * other.total("heads")
    assert one.total("tails") == 0


@pytest.mark.parametrize("views", [1, 5])
def test_all_of_a_few_has_a_wide_interval(views: int) -> None:
    """Ten heads in ten tosses: the exact interval reaches down to 69%, however many views an image has."""
    found = Bootstrap(_coins(10, 1.0, views), 50).rate("heads", "tosses")
    assert found.as_dict() == {"value": 1.0, "low": pytest.approx(0.6915, abs=1e-4), "high": 1.0, "n": 10 * views}
    none = Bootstrap(_coins(10, 0.0, views), 50).rate("heads", "tosses")
    assert none.as_dict() == {"value": 0.0, "low": 0.0, "high": pytest.approx(0.3085, abs=1e-4), "n": 10 * views}


def test_a_rate_without_cases_is_none() -> None:
    boot = Bootstrap(_coins(10, 1.0), 50)
    assert boot.rate("nothing", "never").as_dict() == {"value": None, "low": None, "high": None, "n": 0}
    assert Bootstrap(Sums(), 50).rate("heads", "tosses").value is None
