"""Text without credentials: URIs and error messages that are safe to print, log and store."""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["brief", "open_failure", "public_uri", "without_credentials"]

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]+")
# Schemes whose authority may have a port; elsewhere a colon in it precedes a password.
_WITH_PORTS = ("hdfs", "viewfs", "http", "https")
# URI options that never hold a credential, so that a message may show their values.
_PLAIN_OPTIONS = {
    *("scheme", "endpoint_override", "region", "retry_limit_seconds", "allow_delayed_open", "enable_tls"),
    *("blob_storage_authority", "dfs_storage_authority", "blob_storage_scheme", "dfs_storage_scheme"),
}
_SHORTEST_SECRET = 4


def public_uri(location: str) -> str:
    """Return a path as it is, and a URI without user info and options.

    User info is also recognised where its special characters are not percent-encoded. A location with a password and an
    ``@`` in its path loses the path up to that ``@``.
    """
    scheme, mark, rest = location.partition("://")
    if not mark:
        return location
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    password = ":" in authority and ("@" in authority or scheme.lower() not in _WITH_PORTS)
    before_options = rest.partition("?")[0]
    if password:
        rest = (before_options if "@" in before_options else rest).rpartition("@")[2]
    elif "@" in authority:
        rest = rest.partition("@")[2]
    return f"{scheme}://{rest.partition('?')[0]}"


def without_credentials(text: str) -> str:
    """Return a text with each URI in it replaced by its public form."""
    return _URI.sub(lambda found: public_uri(found[0]), text)


def brief(error: Exception) -> str:
    """Return the reason of an error in one line, without credentials."""
    return without_credentials(_first_line(str(error) or type(error).__name__))


def open_failure(location: str, opened: str, error: Exception) -> str:
    """Return why a location cannot be opened, in one line, without any secret of its URI.

    Args:
        location: the URI as given.
        opened: the URI as it was passed to pyarrow, which quotes it in its errors.
        error: what pyarrow raised.
    """
    text = str(error).replace(opened, public_uri(location)).replace(location, public_uri(location))
    text = without_credentials(_first_line(text))
    rest, _, query = location.partition("://")[2].partition("?")
    user_info = rest.rpartition("@")[0]
    secrets = {user_info, *user_info.split(":"), *map(unquote, user_info.split(":"))}
    for option in query.split("&"):
        name, given, value = option.partition("=")
        if name not in _PLAIN_OPTIONS:
            secrets |= {value, unquote(value)} if given else {name}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "…")
    return text


def _first_line(text: str) -> str:
    """The cause: Arrow reports some errors on many lines."""
    return text.split("\n")[0].strip().removesuffix(":")
