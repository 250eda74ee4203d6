"""The card of a Hugging Face data set: what the folder holds, from counts and names of models only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import yaml

from caslie_ray.export._counts import Counts
from caslie_ray.storage.run import Run

__all__ = ["card", "lineup_names"]

_STEPS = ("K", "M", "B", "T")
_NOT_IN_NAMES = re.compile(r"[^\w./:@+ -]")
_DTYPES = {"double": "float64", "float": "float32"}

_COLUMNS = {
    "id": "the product's id in the shop's catalogue",
    "context": "what the caption was written for",
    "image": "the image, as the catalogue names it",
    "place": "the image's place among those of the product, from 1",
    "caption": "the caption; empty if there is none",
    "verdict": "whether the voters found that the caption helps; null if there is no verdict",
    "yes_share": "the share of yes among valid votes; null without votes",
    "probabilities": "each voter's probability of yes; null where the vote failed",
    "error": "why there is no caption or no verdict; empty otherwise",
}


def lineup_names(run: Run) -> list[str]:
    """Return the names of the models that captioned and voted, from the summary of `caption`; empty without one.

    Raises:
        RunError: the summary is damaged.
    """
    summary = run.read_json("summary/caption.json")
    engines = summary.get("engines") if isinstance(summary, dict) else None
    return [str(name) for name in engines] if isinstance(engines, dict) else []


def card(counts: Counts, schema: pa.Schema, names: Sequence[str], *, every: bool) -> str:
    """Return the text of the card; the same for the same counts.

    Args:
        counts: of the export.
        schema: of its files.
        names: of the models.
        every: whether captions that lost are in it.
    """
    judged = counts.won + counts.lost
    shown = ["every view of every product" if every else "captions that won", f"{counts.rows:,} rows"]
    models = ", ".join(f"`{_NOT_IN_NAMES.sub('_', name)}`" for name in names)
    facts = [
        f"products: {counts.products:,}",
        f"captions with a verdict: {judged:,}",
        *([f"captions that won: {counts.won:,} ({counts.won / judged:.1%})"] if judged else []),
        *([f"models: {models}"] if models else []),
    ]
    columns = [f"| `{name}` | {about} |" for name, about in _COLUMNS.items()]
    body = [
        "# Captions of product images",
        f"Captions that were written for their context and judged by a vote of language models: {', '.join(shown)}.",
        "\n".join(f"- {fact}" for fact in facts),
        "\n".join(["| column | what it is |", "| --- | --- |", *columns]),
        "Written by `caslie export`.",
    ]
    return "\n\n".join([f"---\n{_front_matter(counts, schema)}---", *body]) + "\n"


def _front_matter(counts: Counts, schema: pa.Schema) -> str:
    content: Mapping[str, Any] = {
        "pretty_name": "Captions of product images",
        "size_categories": [_size_category(counts.rows)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
        "dataset_info": {
            "features": [_feature(field) for field in schema],
            "splits": [{"name": "train", "num_examples": counts.rows}],
            "download_size": counts.bytes,
        },
    }
    return str(yaml.safe_dump(content, sort_keys=False))


def _feature(field: pa.Field) -> dict[str, Any]:
    if pa.types.is_list(field.type):
        return {"name": field.name, "list": [_feature(part) for part in field.type.value_type]}
    return {"name": field.name, "dtype": _DTYPES.get(str(field.type), str(field.type))}


def _size_category(rows: int) -> str:
    """Return the hub's name for a number of rows: `n<1K`, `1K<n<10K`, …"""
    if rows < 1_000:
        return "n<1K"
    digits = len(str(rows)) - 1
    low, high = (f"{10 ** (n % 3)}{_STEPS[min(n // 3, len(_STEPS)) - 1]}" for n in (digits, digits + 1))
    return f"{low}<n<{high}"
