"""All export formats: of shops, of data sets of products, and tables with usual names of columns."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from caslie_ray.catalogue._data_set_formats import DATA_SET_FORMATS
from caslie_ray.catalogue._format import Format
from caslie_ray.catalogue._shop_formats import SHOP_FORMATS

__all__ = ["FORMATS"]

_PLAIN = Format(
    name="plain",
    signatures=(),  # see `detect`
    ids=tuple(
        (name,)
        for name in (
            *("id", "product_id", "sku", "item_id", "asin", "parent_asin", "handle", "ean", "gtin", "upc", "article"),
            *("article_number", "item_number", "product_number", "product_code", "uid", "uuid"),
        )
    ),
    texts={
        "title": (
            *("title", "name", "product_name", "product_title", "product_display_name", "productdisplayname"),
            "item_name",
        ),
        "description": (
            *("description", "product_description", "long_description", "body_html", "body", "short_description"),
        ),
        "category": (
            *("category", "categories", "product_category", "category_name", "category_path", "main_category"),
            "product_type",
        ),
        "brand": ("brand", "brand_name", "product_brand", "vendor", "manufacturer"),
    },
    images=(
        *("image", "main_image", "product_image", "image_url", "image_link", "image_src", "image_path", "images"),
        *("image_urls", "image_paths", "additional_images", "additional_image_link", "additional_image_urls"),
        *("picture", "pictures", "photo", "photos", "img", "img_url"),
    ),
    # Next to a column of images, these are often something else, or name the same image.
    spare_images=("file", "filename", "file_name", "path"),
    joins=True,
    levels=frozenset(("category", "categories", "product_category", "category_path")),
)

FORMATS: Mapping[str, Format] = MappingProxyType(
    {each.name: each for each in (*SHOP_FORMATS, *DATA_SET_FORMATS, _PLAIN)}
)
"""The formats by their names in `ingest.format`; of two that fit a header, the first is taken."""
