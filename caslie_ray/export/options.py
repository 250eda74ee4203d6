"""Options of the export, and its command line arguments."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

__all__ = ["ENDINGS", "LISTINGS", "ExportOptions", "add_options", "read_options"]

ENDINGS: dict[str, tuple[str, ...]] = {
    "csv": (".csv",),
    "jsonl": (".jsonl",),
    "parquet": (".parquet",),
    "dataset": (),
    "shopify": (".csv",),
    "merchant_center": (".tsv", ".txt"),
}
"""The formats, and the endings of a file in each, the first being that of the parts in a folder. A `dataset` is always
a folder."""

LISTINGS = ("shopify", "merchant_center")
"""Formats that a shop's system imports into its listings; they have no column for a verdict."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Attributes:
        to: the file or folder to write, a path or URI.
        format: a key of `ENDINGS`; None: by the ending of `to`.
        every: whether to write every view of every product, instead of captions that won.
        contexts: the contexts to write; empty: all.
    """

    to: str
    format: str | None = None
    every: bool = False
    contexts: tuple[str, ...] = ()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the export to a parser."""
    parser.add_argument(
        "--to", required=True, metavar="PATH|URI",
        help="file or folder to write, here or in an object store. A file that exists is replaced. A folder gets one"
        " file per partition; end its name in / if it has a dot",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=list(ENDINGS),
        help="csv, jsonl, parquet, dataset (a Hugging Face data set), shopify (alternative texts of images) or"
        " merchant_center (a supplemental feed). Default: by the ending of --to; a folder: parquet. In csv and shopify,"
        " cells that a spreadsheet would run as formulas, which begin with = + - @, a tab or a line break, begin with"
        " an apostrophe instead",
    )  # fmt: skip
    parser.add_argument(
        "--all", action="store_true",
        help="every view of every product with its verdict and the reason if there is none, and products without an"
        " image or no longer in the catalogue; without it, captions that won",
    )  # fmt: skip
    parser.add_argument(
        "--context", action="append", default=[], metavar="NAME",
        help="only the captions of this context; may be given more than once",
    )  # fmt: skip


def read_options(given: argparse.Namespace) -> ExportOptions:
    """Return the options of a parsed command line."""
    return ExportOptions(given.to, given.format, given.all, tuple(dict.fromkeys(given.context)))
