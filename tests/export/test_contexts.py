"""Which contexts are exported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from caslie_ray.export._contexts import chosen_contexts
from caslie_ray.export.options import ExportOptions
from caslie_ray.profiles import ProfileError


def chosen(form: str, *found: str, **options: Any) -> tuple[str, ...]:
    return chosen_contexts(ExportOptions("x", **options), form, lambda: [{name} for name in found])


def test_all_are_exported_without_a_look_at_the_run() -> None:
    def never() -> Iterator[set[str]]:
        raise AssertionError

    assert chosen_contexts(ExportOptions("x"), "csv", never) == ()


def test_those_that_were_asked_for() -> None:
    assert chosen("csv", "product", "search", "alt_text", contexts=("search", "product")) == ("product", "search")


def test_one_that_the_run_lacks_is_refused() -> None:
    with pytest.raises(ProfileError, match="--context serach: the run has no such context; there are: product, search"):
        chosen("csv", "search", "product", contexts=("serach",))
    with pytest.raises(ProfileError, match="there are: none"):
        chosen("csv", contexts=("product",))


@pytest.mark.parametrize(
    ("found", "asked", "context"),
    [
        (("product", "alt_text"), (), ("alt_text",)),
        (("product",), (), ("product",)),
        (("product", "search"), ("search",), ("search",)),
        (("product", "alt_text"), ("product",), ("product",)),
        ((), (), ()),
    ],
)
def test_shopify_gets_one(found: tuple[str, ...], asked: tuple[str, ...], context: tuple[str, ...]) -> None:
    assert chosen("shopify", *found, contexts=asked) == context


@pytest.mark.parametrize("asked", [(), ("product", "search")])
def test_shopify_refuses_several(asked: tuple[str, ...]) -> None:
    with pytest.raises(ProfileError, match="choose one of product, search with --context"):
        chosen("shopify", "product", "search", contexts=asked)
