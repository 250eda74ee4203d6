"""Which URLs and network addresses a data set may make us connect to."""

from __future__ import annotations

import ipaddress
from urllib.parse import quote, urlsplit

__all__ = ["clean_url", "is_public", "quoted"]

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SAFE = "%/:?#[]@!$&'()*+,;=-._~"


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet.

    Private, loopback, link-local (cloud metadata among them), multicast, reserved and unspecified
    addresses do not, nor do IPv6 addresses that carry such an IPv4 address inside.
    """
    try:
        ip = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def quoted(text: str) -> str:
    """Escape what may not stand in a URL; escapes that are there already are kept as they are."""
    return quote(text, safe=_SAFE)


def clean_url(url: str) -> str:
    """Return an http or https URL in ASCII, without its fragment.

    Raises:
        ValueError: it is no such URL, or carries a user name or password; the message is a reject's reason.
    """
    try:
        parts = urlsplit(url.split("#", 1)[0])
        host, _ = parts.hostname, parts.port
        named = host.encode("idna").decode() if host and not host.isascii() else host
    except ValueError as error:
        raise ValueError(f"invalid URL: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"invalid URL: {parts.scheme or 'no'} scheme; give http or https")
    if not host or not named:
        raise ValueError("invalid URL: it names no host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("credentials in URL: no user name or password is sent; give a URL without them")
    if named != host:
        port = f":{parts.port}" if parts.port is not None else ""
        parts = parts._replace(netloc=named + port)
    return quoted(parts.geturl())
