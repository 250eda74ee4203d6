"""The formats of public data sets of products."""

from __future__ import annotations

from caslie_ray.catalogue._format import Format, column_sets

__all__ = ["DATA_SET_FORMATS"]

# Files of products, not of reviews: these have `images`, too, and other columns.
_AMAZON_REVIEWS_2023 = Format(
    name="amazon_reviews_2023",
    signatures=column_sets("parent_asin images main_category", "parent_asin images features"),
    ids=(("parent_asin",),),
    texts={
        "title": ("title",),
        "description": ("description", "features"),
        "category": ("categories", "main_category"),
        "brand": ("brand", "store"),
    },
    images=("images",),
    html=frozenset(("description",)),
    levels=frozenset(("categories",)),
    main_first=True,
)

# Columns from memory: no sample was at hand. `images.csv` of the data set has the path of each image id.
_ABO = Format(
    name="abo",
    signatures=column_sets("item_id item_name main_image_id", "item_id item_name other_image_id"),
    ids=(("item_id",),),
    texts={
        "title": ("item_name",),
        "description": ("product_description", "bullet_point"),
        "category": ("product_type",),
        "brand": ("brand",),
    },
    images=("main_image_id", "other_image_id"),
    html=frozenset(("product_description",)),
    note="image ids as references: replace them by paths or URLs, which images.csv of the data set has",
)

# Images are those of SQID, joined by the product's id.
_ESCI = Format(
    name="esci",
    signatures=column_sets(
        "product_id product_title esci_label",
        "product_id product_title product_locale",
        "product_id product_title product_bullet_point",
    ),
    ids=(("example_id",), ("product_id", "query"), ("product_id",)),
    texts={
        "title": ("product_title",),
        "description": ("product_description", "product_bullet_point"),
        "brand": ("product_brand",),
        "query": ("query",),
    },
    images=("image_url",),
    html=frozenset(("product_description", "product_bullet_point")),
)

# What the benchmark asks for (`ground_truth_category`, `ground_truth_brand`) is no context unless a template names it.
_SHOPIFY_PRODUCT_CATALOGUE = Format(
    name="shopify_product_catalogue",
    signatures=column_sets("product_title potential_product_categories", "product_title ground_truth_category"),
    ids=(("product_id",), ("id",)),
    texts={"title": ("product_title",), "description": ("product_description",)},
    images=("product_image", "product_image_base64"),
    row_numbers=True,
)

DATA_SET_FORMATS = (_AMAZON_REVIEWS_2023, _ABO, _ESCI, _SHOPIFY_PRODUCT_CATALOGUE)
"""Formats of data sets of products."""
