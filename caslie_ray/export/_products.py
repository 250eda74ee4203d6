"""The views of products: a row per image of a product and context, in the order of the export."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from caslie_ray.export._workspace import Part
from caslie_ray.storage.run import Run

__all__ = ["Selection", "Views", "contexts_in", "views_of"]

_OF_A_VIEW = ("context", "place", "source", "view_id", "reason")
_ORDER = [("product_id", "ascending"), ("context", "ascending"), ("place", "ascending")]


class Selection(NamedTuple):
    """What is exported.

    Attributes:
        contexts: of these contexts only; empty: of all.
        every: all views, and products without an image or no longer in the catalogue; otherwise captions that won.
    """

    contexts: tuple[str, ...] = ()
    every: bool = False


class Views(NamedTuple):
    """The views of some products.

    Attributes:
        rows: `product_id`, `gone`, `imageless`, and the fields of `PRODUCT_VIEWS` but `image_id`. A product without
            any image has one row, in which `imageless` is true.
        products: number of products in the catalogue.
        gone: number of products no longer in the catalogue.
    """

    rows: pa.Table
    products: int
    gone: int


def views_of(run: Run, part: Part, selection: Selection) -> Views:
    """Read the selected views of a partition of `products`, sorted by product, context and place.

    Raises:
        RunError: a file is damaged, or the store refuses.
    """
    found = _read(run, part, ["product_id", "views", "gone"])
    is_gone = pc.fill_null(found["gone"], False)
    gone = int(pc.sum(is_gone).as_py() or 0)
    found = found.set_column(found.schema.get_field_index("gone"), "gone", is_gone)
    if not selection.every:
        found = found.filter(pc.invert(is_gone))
    return Views(_exploded(found, selection.contexts).sort_by(_ORDER), len(is_gone) - gone, gone)


def contexts_in(run: Run, part: Part) -> set[str]:
    """Return the contexts of the products of a partition that are in the catalogue.

    Raises:
        RunError: a file is damaged, or the store refuses.
    """
    found = _read(run, part, ["views", "gone"])
    views = found.filter(pc.invert(pc.fill_null(found["gone"], False)))["views"].combine_chunks()
    return set(pc.unique(pc.struct_field(views.flatten(), "context")).drop_null().to_pylist())


def _read(run: Run, part: Part, columns: list[str]) -> pa.Table:
    return run.with_file_listing({"products": part.files}).read("products", columns, part.name)


def _exploded(found: pa.Table, contexts: Collection[str]) -> pa.Table:
    views = found["views"].combine_chunks()
    flat = views.flatten()
    known = found.select(["product_id", "gone"])
    rows = known.take(pc.list_parent_indices(views)).append_column("imageless", _constant(False, len(flat)))
    for name in _OF_A_VIEW:
        rows = rows.append_column(name, pc.struct_field(flat, name))
    if contexts:
        rows = rows.filter(pc.field("context").isin(list(contexts)))
    none = known.filter(pc.equal(pc.fill_null(pc.list_value_length(views), 0), 0))
    none = none.append_column("imageless", _constant(True, none.num_rows))
    for name in _OF_A_VIEW:
        none = none.append_column(name, pa.nulls(none.num_rows, rows.schema.field(name).type))
    return pa.concat_tables([rows, none])


def _constant(value: bool, count: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), count)
