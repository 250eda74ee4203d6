"""Request headers of image downloads, and the servers that each is sent to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from urllib.parse import urlsplit

from caslie_ray import __version__
from caslie_ray.hashing import content_id
from caslie_ray.profiles import ImageSettings, ProfileError
from caslie_ray.profiles.headers import VARIABLE, ascii_host, check_value, is_credential

__all__ = ["RequestHeaders", "header_settings", "request_headers", "same_origin"]

_DEFAULT = {"Accept": "image/*,*/*;q=0.5", "User-Agent": f"caslie_ray/{__version__}"}
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class RequestHeaders:
    """Headers with their values; credentials apart.

    Attributes:
        common: sent to every server.
        credentials: sent to `hosts` only.
        hosts: names of hosts in ASCII. Subdomains count too, but not those of a single label, such as `com`.
        plain_http: whether credentials are sent over plain http too.
    """

    common: Mapping[str, str]
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    hosts: tuple[str, ...] = ()
    plain_http: bool = False

    def are_for(self, url: str) -> bool:
        """Whether there are credentials for the host of a URL."""
        host = urlsplit(url).hostname or ""
        return bool(self.credentials) and any(
            host == one or ("." in one and host.endswith(f".{one}")) for one in self.hosts
        )

    def go_to(self, chain: Sequence[str]) -> bool:
        """Whether credentials are sent with a request: to a host that they are for, over https unless plain http is
        allowed, and only where no redirect led to another server.

        Args:
            chain: the URL that was asked for and those that redirects led to; the last one is requested.
        """
        encrypted = urlsplit(chain[-1]).scheme == "https"
        stayed = all(same_origin(one, other) for one, other in pairwise(chain))
        return (encrypted or self.plain_http) and stayed and self.are_for(chain[-1])


def request_headers(settings: ImageSettings, environment: Mapping[str, str]) -> RequestHeaders:
    """Return the headers of a profile, with values from the environment inserted.

    Credentials are sent over https only, unless `images.allow_private` is true.

    Raises:
        ProfileError: a variable is not set, or its value is not allowed in a header; the message does not show it.
    """
    common, credentials = dict(_DEFAULT), {}
    for name, text in settings.headers.items():
        missing = [one for one in VARIABLE.findall(text) if one not in environment]
        if missing:
            raise ProfileError(f"images.headers.{name}: the environment variable {missing[0]} is not set")
        value = VARIABLE.sub(lambda found: environment[found[1]].strip(), text)
        try:
            check_value(name, value)
        except ValueError as error:
            raise ProfileError(f"images.headers.{error}") from None
        if is_credential(name, text):
            credentials[name] = value
            continue
        for other in [other for other in common if other.lower() == name.lower()]:
            del common[other]
        common[name] = value
    hosts = tuple(map(ascii_host, settings.credential_hosts))
    return RequestHeaders(common, credentials, hosts, plain_http=settings.allow_private)


def header_settings(settings: ImageSettings) -> str:
    """Return a hash of the headers that a failed download depends on. It contains no credential and may be stored.

    Empty where the profile sets none.
    """
    if not settings.headers:
        return ""
    parts = [
        f"{name.lower()}:{'' if is_credential(name, value) else value}" for name, value in settings.headers.items()
    ]
    return content_id(*sorted(parts), *sorted(settings.credential_hosts))[:12]


def same_origin(url: str, other: str) -> bool:
    """Whether a redirect stays with its server; going from http to https of one host does."""
    one, two = urlsplit(url), urlsplit(other)
    if one.hostname != two.hostname:
        return False
    ports = [part.port or _PORTS.get(part.scheme) for part in (one, two)]
    if (one.scheme, two.scheme) == ("http", "https") and ports == [80, 443]:
        return True
    return one.scheme == two.scheme and ports[0] == ports[1]
