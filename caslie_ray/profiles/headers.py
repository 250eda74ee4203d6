"""Request headers in a profile: which may be set, and which of them are credentials."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["VARIABLE", "ascii_host", "check_headers", "check_value", "is_credential"]

VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")
"""A value that is taken from the environment when images are fetched: `${NAME}`."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token, RFC 9110
_VALUE = re.compile(r"[\t\x20-\x7e]*")
# Set by the client: they frame the message or describe its body.
_OWN = {
    "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
    "keep-alive", "range", "te", "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_SECRET = re.compile(r"auth|cookie|credential|key|password|secret|session|signature|token", re.IGNORECASE)


def check_headers(headers: Mapping[str, str]) -> None:
    """Check request headers; values are never part of the message.

    Raises:
        ValueError: a name is not one of HTTP, is the client's own, or occurs twice; or a value is not printable ASCII.
    """
    seen: set[str] = set()
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a header: letters, digits and - are allowed")
        if name.lower() in _OWN or name.lower().startswith("proxy-"):
            raise ValueError(f"{name} is set by the client itself; leave it out")
        if name.lower() in seen:
            raise ValueError(f"{name} is set twice; upper and lower case are the same")
        seen.add(name.lower())
        check_value(name, VARIABLE.sub("", value))
        if "${" in VARIABLE.sub("", value):
            raise ValueError(f"{name}: a value from the environment is written ${{NAME}}, with letters, digits and _")


def check_value(name: str, value: str) -> None:
    """Check a header's value.

    Raises:
        ValueError: it is not printable ASCII.
    """
    if not _VALUE.fullmatch(value):
        raise ValueError(f"{name}: the value has a line break or another character that is not printable ASCII")


def is_credential(name: str, value: str) -> bool:
    """Return whether a header is only for trusted hosts: by its name, or because its value is from the environment."""
    return bool(_SECRET.search(name) or VARIABLE.search(value))


def ascii_host(text: str) -> str:
    """Return a host name in the form used in URLs: lower case, ASCII (IDNA).

    Raises:
        ValueError: it is not the name of a host alone.
    """
    try:
        host = text.strip(".").encode("idna").decode().lower()
    except UnicodeError:
        host = ""
    if not _HOST.fullmatch(host):
        raise ValueError(
            f"{text!r} is no host; give its name alone, such as cdn.shop.example, and leave scheme, port and path out"
        )
    return host
