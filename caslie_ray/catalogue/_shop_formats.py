"""The formats that shops export."""

from __future__ import annotations

from caslie_ray.catalogue._format import Format, column_sets

__all__ = ["SHOP_FORMATS"]

# Names of before and since 2025. A product has a row per variant or image; all but its first have only the handle.
_SHOPIFY = Format(
    name="shopify",
    signatures=column_sets(
        "handle image_src",
        "handle variant_image",
        "url_handle product_image_url",
        "url_handle variant_image_url",
    ),
    ids=(("handle",), ("url_handle",)),
    texts={
        "title": ("title",),
        "description": ("body_html", "description"),
        "category": ("product_category", "standard_product_type", "type", "custom_product_type"),
        "brand": ("vendor",),
    },
    images=("image_src", "product_image_url", "variant_image", "variant_image_url"),
    html=frozenset(("body_html", "description")),
    separators="",
    image_order="image_position",
    joins=True,
    group=("handle", "url_handle"),
)

# Variations are rows with an id, so they are products of their own.
_WOOCOMMERCE = Format(
    name="woocommerce",
    signatures=column_sets(
        "type name images short_description",
        "type name images regular_price",
        "type name images attribute_1_name",
        "type name images parent",
    ),
    ids=(("sku",), ("id",)),
    texts={
        "title": ("name",),
        "description": ("description", "short_description"),
        "category": ("categories",),
        "brand": ("brands", "brand"),
    },
    images=("images",),
    html=frozenset(("description", "short_description")),
    separators=",",
    escaped_lines=True,
)

# A product has a row per store view; those after the first have only the texts that differ.
_MAGENTO = Format(
    name="magento",
    signatures=column_sets("sku base_image", "sku additional_images"),
    ids=(("sku",),),
    texts={
        "title": ("name",),
        "description": ("description", "short_description"),
        "category": ("categories",),
        "brand": ("brand", "manufacturer"),
    },
    images=("base_image", "additional_images"),
    html=frozenset(("description", "short_description")),
    separators=",|",
    joins=True,
    group=("sku",),
    no_image=frozenset(("no_selection",)),
    relative_paths=True,  # /m/u/mug.jpg is below pub/media/catalog/product
)

_MERCHANT_CENTER = Format(
    name="merchant_center",
    signatures=column_sets("id image_link"),
    ids=(("id",),),
    texts={
        "title": ("title",),
        "description": ("description",),
        "category": ("product_type", "google_product_category"),
        "brand": ("brand",),
    },
    images=("image_link", "additional_image_link"),
    separators=",\n",
)

SHOP_FORMATS = (_SHOPIFY, _WOOCOMMERCE, _MAGENTO, _MERCHANT_CENTER)
"""Formats of shops, the most special first."""
