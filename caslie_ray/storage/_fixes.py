"""How a user repairs each kind of damaged file."""

from __future__ import annotations

import posixpath

__all__ = ["DAMAGED", "fix_for"]

DAMAGED = "damaged"
"""Folder of a run with copies of damaged files that jobs replaced."""

_KEEP = f"and keeps a copy of the file in {DAMAGED}/"
_MOVE = "move it to another folder and run {job} again, which rewrites it"
_INGEST = f"run ingest again: it reads and fetches what is missing, {_KEEP}"
_TABLES = ("samples", "images", "views", "rejects")
_FIXES = {
    "captions": f"run caption again: it uses the answers that can still be read, asks for the others, {_KEEP}",
    "answers": f"run caption again: it asks for the answers of this file, {_KEEP}",
    "predictions": f"run predict again: it asks the questions of this file, {_KEEP}",
    "instructions": "run fuse again, which rewrites it",
    "experiments": "run fuse again, which rewrites it",
    # Ingest skips tables whose file names and sizes have not changed.
    **dict.fromkeys(_TABLES, f"{_INGEST}; if the error stays, move the file to another folder first"),
    **dict.fromkeys(("fetched", "parsed", "pending"), _INGEST),
}


def fix_for(path: str, *, noticed: bool = True) -> str:
    """Return how a user repairs a damaged file of a run without losing finished work.

    Args:
        path: the file.
        noticed: whether its footer shows the damage. If not, caption takes the partition for finished and ingest the
            table for complete, and both leave the file alone.
    """
    folder = posixpath.dirname(path)
    names = posixpath.basename(folder), posixpath.basename(posixpath.dirname(folder))
    if not noticed and "captions" in names:
        return _MOVE.format(job="caption")
    if not noticed and names[0] in _TABLES:
        return _MOVE.format(job="ingest")
    if names[0] == "ingest":
        return _INGEST
    found = next((_FIXES[name] for name in names if name in _FIXES), None)
    return found or _MOVE.format(job="the job that wrote it")
