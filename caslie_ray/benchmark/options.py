"""Options of the benchmark, and its command line arguments."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

__all__ = ["MEASURES", "Options", "add_options", "read_options"]

MEASURES = ("captioning", "voting", "chain", "prediction", "training")
"""What can be measured; `chain` is captioning and voting together."""

_FULL_VIEWS, _QUICK_VIEWS = 1_000, 48
_FULL_ROUNDS, _QUICK_ROUNDS = 3, 1


@dataclass(frozen=True)
class Options:
    """Options of the benchmark.

    Attributes:
        quick: few views, one voter, one round: a smoke test.
        measures: of `MEASURES`.
        views: number of views; None for the default.
        rounds: number of rounds; None for the default.
    """

    quick: bool = False
    measures: tuple[str, ...] = MEASURES
    views: int | None = None
    rounds: int | None = None

    @property
    def view_count(self) -> int:
        """Maximum number of views, of questions, and of training samples."""
        return self.views or (_QUICK_VIEWS if self.quick else _FULL_VIEWS)

    @property
    def round_count(self) -> int:
        """Number of rounds; each measures every system once."""
        return self.rounds or (_QUICK_ROUNDS if self.quick else _FULL_ROUNDS)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark to a parser."""
    parser.add_argument("--quick", action="store_true", help="few views, one voter, one round: a smoke test")
    parser.add_argument("--json", metavar="FILE", help="write all figures to a file")
    parser.add_argument("--plot", metavar="FILE", help="write the ratios as an SVG image")
    parser.add_argument("--views", type=_positive, metavar="N", help="maximum number of views (1000; 48 with --quick)")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="number of rounds (3; 1 with --quick)")
    parser.add_argument(
        "--only", nargs="+", choices=MEASURES, default=list(MEASURES), metavar="NAME",
        help=f"measure only some of {', '.join(MEASURES)}",
    )  # fmt: skip


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be at least 1")
    return number


def read_options(given: argparse.Namespace) -> Options:
    """Return the options of a parsed command line."""
    measures = tuple(name for name in MEASURES if name in given.only)
    return Options(given.quick, measures, given.views, given.rounds)
