"""URLs and network addresses that a data set may name (SSRF protection)."""

from __future__ import annotations

import ipaddress
from urllib.parse import quote, urlsplit

__all__ = ["clean_url", "is_public", "quoted"]

# Own lists, since those of `ipaddress` differ between Python versions: IANA's special-purpose registries, including
# blocks that these call globally reachable, since no images are served from there.
_SPECIAL_V4 = [
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared by a provider's customers; a cloud's metadata at 100.100.100.200
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # the host of an Azure machine
        "169.254.0.0/16",  # link-local; metadata of most clouds at 169.254.169.254
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata at 192.0.0.192
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
]
# Only this block is allocated. Outside it are loopback, fc00::/7, fe80::/10, fec0::/10, ff00::/8, 100::/64,
# 5f00::/16, 64:ff9b:1::/48, and metadata of clouds at fd00:ec2::254 and fd20:ce::254.
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_V6 = [
    ipaddress.IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
]
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
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in block for block in _SPECIAL_V4)
    inner = ip.ipv4_mapped or ip.sixtofour
    if inner is None and ip in _NAT64:
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(str(inner))
    return ip in _GLOBAL_V6 and not any(ip in block for block in _SPECIAL_V6)


def quoted(text: str) -> str:
    """Percent-encode what is not allowed in a URL; existing escapes are kept."""
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
