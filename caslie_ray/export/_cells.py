"""Texts as cells: on one line, within a limit, and never a formula of a spreadsheet."""

from __future__ import annotations

__all__ = ["on_one_line", "quoted", "safe", "shortened"]

# Spreadsheets run cells that begin so; the last four are full-width forms, which some convert.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_CUT = "…"


def safe(text: str) -> str:
    """Return a text that a spreadsheet shows instead of running it: an apostrophe precedes what begins a formula."""
    return f"'{text}" if text.startswith(_FORMULAS) else text


def on_one_line(text: str) -> str:
    """Return a text with each run of white space replaced by one space."""
    return " ".join(text.split())


def shortened(text: str, limit: int) -> str:
    """Return a text of at most `limit` characters, cut between words where possible; it ends in … if it is cut."""
    if len(text) <= limit:
        return text
    kept = text[: limit - len(_CUT)]
    if not text[len(kept)].isspace():
        kept = kept.rpartition(" ")[0] or kept
    return kept.rstrip() + _CUT


def quoted(text: str) -> str:
    """Return a text in double quotes; those in it are doubled."""
    return '"' + text.replace('"', '""') + '"'
