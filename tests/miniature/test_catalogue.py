from itertools import product
from random import Random

from caslie_ray.miniature._shapes import SHAPES
from caslie_ray.miniature.catalogue import (
    BRANDS,
    CATEGORIES,
    COLOURS,
    COMPLEMENTS,
    PATTERNS,
    SIZES,
    SPORTS,
    TOOLS,
    USES,
    Look,
    held_out,
    new_listing,
    random_look,
)


def test_the_world_has_the_documented_size() -> None:
    assert len(CATEGORIES) >= 20
    assert len(COLOURS) == 8
    assert len(PATTERNS) == 4
    assert not set(TOOLS) & set(SPORTS)
    assert set(SHAPES) == set(USES) == set(CATEGORIES)


def test_complements_are_mutual_and_in_the_same_domain() -> None:
    for name, other in COMPLEMENTS.items():
        assert COMPLEMENTS[other] == name != other
        assert (name in TOOLS) == (other in TOOLS)


def test_a_fifth_of_the_combinations_is_held_out_and_every_value_is_still_seen() -> None:
    looks = [Look(*values, SIZES[0], BRANDS[0]) for values in product(CATEGORIES, COLOURS, PATTERNS)]
    seen = [look for look in looks if not held_out(look)]
    assert 0.18 < 1 - len(seen) / len(looks) < 0.22
    assert {(look.category, look.colour) for look in seen} == set(product(CATEGORIES, COLOURS))
    assert len({(look.category, look.pattern) for look in seen}) == len(CATEGORIES) * len(PATTERNS)


def test_looks_for_training_exclude_the_held_out_combinations() -> None:
    rng = Random(0)
    assert not any(held_out(random_look(rng, CATEGORIES, combinations="seen")) for _ in range(500))


def test_titles_contain_only_the_requested_attributes() -> None:
    rng = Random(1)
    look = Look("mug", "red", "striped", "small", "Kivo")
    for _ in range(50):
        detailed = new_listing(rng, look, detailed=True).title.split()
        assert {"red", "striped", "mug"} <= set(detailed)
        plain = new_listing(rng, look, detailed=False, named=False, hinted=True).title.split()
        assert not {"red", "striped", "mug"} & set(plain)
        assert "coffee" in plain
