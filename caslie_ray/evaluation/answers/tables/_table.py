"""A table of texts, and its forms as Markdown and LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tabulate import tabulate

__all__ = ["Table", "as_latex", "as_markdown"]


@dataclass(frozen=True)
class Table:
    """A table of formatted cells.

    Attributes:
        number: number of the paper's table with this layout; empty if there is none.
        title: its caption.
        columns: column heads.
        rows: the cells per row; the first says whose figures they are (`ours` or `paper`), the second of what.
        note: text below the table.
    """

    number: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    @property
    def heading(self) -> str:
        """Number and title."""
        return f"Table {self.number}: {self.title}" if self.number else self.title


def as_markdown(tables: Sequence[Table]) -> str:
    """Return tables as Markdown."""
    parts = []
    for table in tables:
        body = tabulate(table.rows, table.columns, tablefmt="github", disable_numparse=True)
        parts.append(f"### {table.heading}\n\n{body}\n" + (f"\n{table.note}\n" if table.note else ""))
    return "\n".join(parts)


def as_latex(tables: Sequence[Table]) -> str:
    """Return tables as LaTeX table environments, which need the package booktabs."""
    parts = []
    for table in tables:
        body = tabulate(table.rows, table.columns, tablefmt="latex_booktabs", disable_numparse=True)
        body = body.replace("³", "$^3$").replace("−", "$-$").replace("–", "--")
        parts.append(f"\\begin{{table}}\n\\caption{{{_latex_caption(table)}}}\n{body}\n\\end{{table}}\n")
    return "\n".join(parts)


def _latex_caption(table: Table) -> str:
    caption = f"{table.title} (Table {table.number})" if table.number else table.title
    return re.sub(r"([&%$#_{}])", r"\\\1", caption)
