"""Options of the ingest job."""

from __future__ import annotations

import argparse

__all__ = ["add_options"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ingest to a parser."""
    parser.add_argument(
        "--show-prompts", type=int, default=0, metavar="N",
        help="with --plan: print the prompts of the first N rows of each source file",
    )  # fmt: skip
