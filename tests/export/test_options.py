"""The command line of the export."""

from __future__ import annotations

import pytest

from caslie_ray.commands import command_parser
from caslie_ray.export.options import ENDINGS, ExportOptions, read_options


def read(*more: str) -> ExportOptions:
    return read_options(command_parser("export").parse_args(["--run", "r", *more]))


def test_options_of_the_command_line() -> None:
    assert read("--to", "x.csv") == ExportOptions("x.csv", None, False, ())
    given = ["--to", "x", "--format", "dataset", "--all", "--context", "b", "--context", "a", "--context", "b"]
    assert read(*given) == ExportOptions("x", "dataset", True, ("b", "a"))


@pytest.mark.parametrize("wrong", [[], ["--to", "x", "--format", "xlsx"]])
def test_wrong_options(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        read(*wrong)


def test_the_help_names_formats_and_the_apostrophe() -> None:
    text = " ".join(command_parser("export").format_help().split())
    for word in (*ENDINGS, "begin with an apostrophe instead"):
        assert word in text
