"""The Arrow schema of every table of a run, declared once."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["ANSWERS", "CONTEXT_FREE_FOLDER", "IDS", "PAIRS", "PRODUCT_VIEWS", "SCHEMAS", "SPANS", "VOTE"]

CONTEXT_FREE_FOLDER = "context_free"
"""The folder of a run that is a run of its own: captions of the same images and views, written without context."""

SPANS = pa.list_(pa.list_(pa.int32()))
"""Spans of a prompt that may be cut, such as user fields: [start, end) character offsets."""

PAIRS = pa.list_(pa.struct([("field", pa.string()), ("text", pa.string())]))
"""Named texts in order."""

_SOURCE_IDS = pa.list_(pa.string())
# The ids of a sample's rows in the sources, in order; null if the sources have none.

VOTE = pa.struct(
    [
        ("voter", pa.string()),
        ("answer", pa.string()),
        ("p_yes", pa.float64()),
        ("key", pa.string()),
        ("cut", pa.bool_()),
        ("tokens", pa.int32()),
        ("error", pa.string()),
        ("retryable", pa.bool_()),
    ]
)
"""One voter's answer to one view: `answer` is yes or no, or null if `error` says why."""

ANSWERS = pa.schema(
    [
        ("key", pa.string()),
        ("text", pa.string()),
        ("p_yes", pa.float64()),
        ("tokens", pa.int32()),
        ("cut", pa.bool_()),
        ("error", pa.string()),
        ("retryable", pa.bool_()),
        ("truncated", pa.bool_()),
    ]
)
"""Answers of one model by key, stored in ``answers/<model>-<fingerprint>/`` by the staged schedule."""

PRODUCT_VIEWS = pa.list_(
    pa.struct(
        [
            ("context", pa.string()),
            ("place", pa.int32()),
            ("source", pa.string()),
            ("image_id", pa.string()),
            ("view_id", pa.string()),
            ("reason", pa.string()),
        ]
    )
)
"""The images of a product by context: `place` counts its images from 1, `source` is the reference as the catalogue has
it. Without an image, `image_id` and `view_id` are null, and `reason` says why."""

SCHEMAS: dict[str, pa.Schema] = {
    "samples": pa.schema(
        [
            ("sample_id", pa.string()),
            ("task", pa.string()),
            ("split", pa.string()),
            ("instruction", pa.string()),
            ("input", PAIRS),
            ("options", pa.list_(pa.string())),
            ("output", pa.string()),
            ("view_ids", pa.list_(pa.string())),
            ("captions", pa.list_(pa.string())),
            ("source_ids", _SOURCE_IDS),
        ]
    ),
    "images": pa.schema(
        [("image_id", pa.string()), ("image", pa.binary()), ("width", pa.int32()), ("height", pa.int32())]
    ),
    "views": pa.schema(
        [
            ("view_id", pa.string()),
            ("image_id", pa.string()),
            ("task", pa.string()),
            ("caption_prompt", pa.string()),
            ("quality_prompt", pa.string()),
            ("caption_fields", SPANS),
            ("quality_fields", SPANS),
            ("given_caption", pa.string()),
        ]
    ),
    "captions": pa.schema(
        [
            ("view_id", pa.string()),
            ("image_id", pa.string()),
            ("caption", pa.string()),
            ("votes", pa.list_(VOTE)),
            ("verdict", pa.bool_()),
            ("calls", pa.int32()),
            ("cut", pa.bool_()),
            ("error", pa.string()),
            ("retryable", pa.bool_()),
            ("caption_key", pa.string()),
            ("caption_cut", pa.bool_()),
            ("caption_tokens", pa.int32()),
            ("caption_truncated", pa.bool_()),
        ]
    ),
    "instructions": pa.schema(
        [
            ("sample_id", pa.string()),
            ("task", pa.string()),
            ("split", pa.string()),
            ("variant", pa.string()),
            ("prompt", pa.string()),
            ("prompt_fields", SPANS),
            ("response", pa.string()),
            ("options", pa.list_(pa.string())),
            ("captions_used", pa.int32()),
            ("prompt_captions", SPANS),
            ("source_ids", _SOURCE_IDS),
        ]
    ),
    "predictions": pa.schema(
        [
            ("sample_id", pa.string()),
            ("model", pa.string()),
            ("variant", pa.string()),
            ("text", pa.string()),
            ("answer", pa.string()),
            ("failed", pa.bool_()),
            ("key", pa.string()),
            ("tokens", pa.int32()),
            ("cut", pa.bool_()),
            ("error", pa.string()),
            ("retryable", pa.bool_()),
            ("captions_cut", pa.bool_()),
            ("source_ids", _SOURCE_IDS),
        ]
    ),
    "products": pa.schema(
        [
            ("product_id", pa.string()),
            ("texts", PAIRS),
            ("views", PRODUCT_VIEWS),
            ("location", pa.string()),
            ("gone", pa.bool_()),
        ]
    ),
    "rejects": pa.schema(
        [
            ("kind", pa.string()),
            ("source", pa.string()),
            ("reason", pa.string()),
            ("retryable", pa.bool_()),
            ("location", pa.string()),
            ("sample_id", pa.string()),
            ("source_id", pa.string()),
        ]
    ),
}

# What experiments make of the samples.
SCHEMAS["experiments"] = SCHEMAS["instructions"]

IDS: dict[str, tuple[str, ...]] = {
    "samples": ("sample_id",),
    "images": ("image_id",),
    "views": ("view_id",),
    "captions": ("view_id",),
    "instructions": ("sample_id", "variant"),
    "experiments": ("sample_id", "variant"),
    "predictions": ("sample_id", "model", "variant"),
    "products": ("product_id",),
    "rejects": (),
}
"""The columns that together identify a row; readers return one row per id."""
