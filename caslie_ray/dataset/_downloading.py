"""Image downloads by URL: limited bytes and time, retries, no private or link-local addresses (SSRF protection)."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Self
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from caslie_ray.dataset._decoding import ImageError, too_large
from caslie_ray.dataset._headers import RequestHeaders
from caslie_ray.dataset._urls import clean_url, is_public
from caslie_ray.profiles import ImageSettings

__all__ = ["NO_VALIDATORS", "Download", "Downloader", "GoneError", "NotModified", "Validators"]

REDIRECTS = 5
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
_CHUNK = 64 * 1024
_VALIDATOR_CHARACTERS = 1000
_PASSING = {408, 425, 429}
_GONE = {404, 410}
_MEANS = {
    401: "it wants a login; give a public URL, or a header with the login (images.headers; sent over https)",
    403: "the server refuses; give another URL, or the headers that it wants (images.headers: User-Agent, Referer)",
    404: "the image is not there (any more); give another URL",
    410: "the image is gone; give another URL",
    429: "the server asks for fewer requests; lower images.concurrency and run again",
}


@dataclass(frozen=True, slots=True)
class Validators:
    """What a server calls the version of a body by (RFC 9110, section 8.8).

    Attributes:
        etag: the `ETag`; None if there is none that can be sent back.
        last_modified: the `Last-Modified`, likewise.
    """

    etag: str | None = None
    last_modified: str | None = None

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Validators:
        """Return the validators among the headers of an answer."""
        return cls(_sendable(headers.get("ETag")), _sendable(headers.get("Last-Modified")))

    def conditions(self) -> dict[str, str]:
        """Return the request headers that ask for a body only if it has another version."""
        if self.etag is not None:
            return {"If-None-Match": self.etag}
        return {} if self.last_modified is None else {"If-Modified-Since": self.last_modified}


NO_VALIDATORS = Validators()


@dataclass(frozen=True, slots=True)
class Download:
    """A body, and the validators that came with it."""

    body: bytes
    validators: Validators = NO_VALIDATORS


class NotModified(Exception):
    """The server still has the version that the request names: 304."""


class GoneError(ImageError):
    """The server answers that the image is not there, or not any more: 404 or 410."""


class RefusedAddressError(OSError):
    """A host has only addresses that are refused."""


class _PublicResolver(AbstractResolver):
    """Resolves a host to its public addresses only. The connector uses the checked addresses, which prevents DNS
    rebinding."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        public = [one for one in found if is_public(one["host"])]
        if found and not public:
            raise RefusedAddressError(_refused(host, found[0]["host"]))
        return public

    async def close(self) -> None:
        await self._inner.close()


class Downloader:
    """Downloads within limits; an async context manager.

    - At most `concurrency` concurrent downloads; each attempt has `timeout_s` in total, redirects included.
    - The byte limit is enforced while the body arrives, unpacked; a Content-Length over it is refused immediately.
    - Busy servers, time-outs and broken connections are retried with exponential backoff and jitter, or after
      the pause in ``Retry-After``.
    - Only http and https; only public addresses unless allowed, on redirects too.
    - Credentials among the headers are sent to the profile's hosts only, over https only unless private addresses
      are allowed, and not after a redirect to another origin.

    Limits: no proxy is used, and cookies that servers set are not kept.

    Args:
        limits: settings of downloads.
        headers: the headers of each request.
    """

    def __init__(self, limits: ImageSettings, headers: RequestHeaders) -> None:
        self._limits = limits
        self._headers = headers
        self._slots = asyncio.Semaphore(limits.concurrency)

    async def __aenter__(self) -> Self:
        resolver = ThreadedResolver() if self._limits.allow_private else _PublicResolver()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._limits.concurrency, resolver=resolver),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._limits.connect_timeout_s),
            headers={"Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def download(self, url: str, known: Validators = NO_VALIDATORS) -> Download:
        """Return what is at `url`, after redirects.

        Args:
            url: an http or https URL.
            known: the validators of the version that need not be downloaded.

        Raises:
            NotModified: it is that version.
            ImageError: it cannot be downloaded; `retryable` where a later run may succeed.
        """
        async with self._slots:
            for attempt in range(self._limits.retries + 1):
                try:
                    return await self._attempt(url, known)
                except _PassingError as error:
                    pause = error.pause_s
                    if pause is None:
                        pause = FIRST_PAUSE_S * 2**attempt * random.uniform(0.5, 1.5)
                    if attempt == self._limits.retries or pause > LONGEST_PAUSE_S:
                        tries = f"after {attempt + 1} tries" if attempt else "at the first try"
                        raise ImageError(f"{error} ({tries})", retryable=True) from None
                    await asyncio.sleep(pause)
        raise AssertionError("the last attempt either returns or raises")

    async def _attempt(self, url: str, known: Validators) -> Download:
        host = urlsplit(url).hostname or url
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                return await self._follow(url, known.conditions())
        except TimeoutError:
            raise _PassingError(f"time-out: {host} took more than {self._limits.timeout_s:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise _of_connection(host, error) from None
        except aiohttp.ClientConnectionError as error:
            raise _PassingError(f"connection lost: {host}: {_short(error)}") from None
        except aiohttp.ClientPayloadError as error:
            raise _PassingError(f"broken transfer: {host}: {_short(error)}") from None
        except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError) as error:
            raise ImageError(f"no valid HTTP: {host}: {_short(error)}; give another URL") from None
        except (ValueError, UnicodeError) as error:
            raise ImageError(f"invalid URL: {_short(error)}") from None

    async def _follow(self, url: str, conditions: Mapping[str, str]) -> Download:
        chain = [url]
        while len(chain) <= REDIRECTS + 1:
            url = chain[-1]
            self._check(url)
            credentials = self._headers.credentials if self._headers.go_to(chain) else {}
            headers = {**self._headers.common, **credentials, **conditions}
            async with self._session.get(URL(url, encoded=True), headers=headers, allow_redirects=False) as answer:
                if answer.status in (301, 302, 303, 307, 308) and "Location" in answer.headers:
                    chain.append(_redirected(url, answer.headers["Location"]))
                    continue
                if answer.status == 304 and conditions:
                    raise NotModified
                if answer.status != 200:
                    raise _of_status(answer)
                return Download(await self._body(answer), Validators.of(answer.headers))
        raise ImageError(f"too many redirects: more than {REDIRECTS}; give the image's own URL")

    def _check(self, url: str) -> None:
        # A name is checked when it is resolved; an address is never resolved, so it is checked here.
        host = urlsplit(url).hostname or ""
        numeric = ":" in host or host.replace(".", "").isdigit()
        if numeric and not self._limits.allow_private and not is_public(host):
            raise ImageError(_refused(host, host))

    async def _body(self, answer: aiohttp.ClientResponse) -> bytes:
        limit = self._limits.max_bytes
        if answer.content_length is not None and answer.content_length > limit:
            answer.close()
            raise ImageError(too_large(answer.content_length, limit))
        body = bytearray()
        async for chunk in answer.content.iter_chunked(_CHUNK):
            body += chunk
            if len(body) > limit:
                answer.close()
                raise ImageError(too_large(None, limit))
        return bytes(body)


def _sendable(value: str | None) -> str | None:
    """Return a validator; None if a request must not, or cannot, repeat it. `*` would match any version."""
    if not value or value == "*" or len(value) > _VALIDATOR_CHARACTERS:
        return None
    return value if value.isascii() and value.isprintable() else None


def _redirected(url: str, location: str) -> str:
    try:
        return clean_url(urljoin(url, location))
    except ValueError as error:
        raise ImageError(f"refused redirect: {error}") from None


class _PassingError(Exception):
    """A failure that may pass; `pause_s` is how long the server asks to wait."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


def _of_status(answer: aiohttp.ClientResponse) -> Exception:
    host, status = answer.url.host, answer.status
    reason = f"HTTP {status}: {host}: {_MEANS.get(status, answer.reason or 'no image')}"
    if status in _PASSING or status >= 500:
        return _PassingError(reason, _retry_after(answer.headers.get("Retry-After")))
    return GoneError(reason) if status in _GONE else ImageError(reason)


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for."""
    if value is None:
        return None
    try:
        if value.strip().isdigit():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _of_connection(host: str, error: aiohttp.ClientConnectorError) -> Exception:
    inner = error.os_error
    if isinstance(inner, RefusedAddressError):
        return ImageError(str(inner))
    if isinstance(inner, ssl.SSLCertVerificationError):
        return ImageError(f"certificate not valid: {host}: {_short(inner)}; give another URL")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return _PassingError(f"host not found: {host}: {_short(inner)}; check the URL and the network")
    return _PassingError(f"no connection: {host}: {_short(inner)}")


def _refused(host: str, address: str) -> str:
    where = host if host == address else f"{host} is {address}, which"
    return f"refused address: {where} is not on the public internet; set images.allow_private to allow it"


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__).split("\n")[0][:200]
