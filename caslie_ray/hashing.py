"""Content hashes: the same content has the same id on every machine and in every run."""

from __future__ import annotations

import hashlib

__all__ = ["content_id"]


def content_id(*parts: str | bytes) -> str:
    """Return 32 hexadecimal digits that depend on all parts and their boundaries.

    Args:
        parts: text (hashed as UTF-8, lone surrogates included) or bytes.
    """
    pieces: list[bytes] = []
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        pieces += (len(data).to_bytes(8, "little"), data)
    return hashlib.sha256(b"".join(pieces)).hexdigest()[:32]
