"""Limits on fetching and decoding product images."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from caslie_ray.profiles._base import Listed, Positive, Seconds, Settings, Whole
from caslie_ray.profiles.headers import ascii_host, check_headers, is_credential
from caslie_ray.storage.redaction import public_uri

__all__ = ["ImageSettings"]

_ROOT_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs", "file")


class ImageSettings(Settings):
    """Limits on downloading and decoding an image, and its stored size."""

    max_side: int = Field(default=500, ge=1, le=500)
    """Longest side of a stored image in pixels; larger ones are scaled down."""

    max_pixels: Positive = 50_000_000
    """Maximum pixels of a source image, read from its header before decoding; more is a reject."""

    max_bytes: Positive = 20_000_000
    """Maximum bytes of a source file; more is a reject."""

    max_memory: Positive = 1_300_000_000
    """Maximum bytes of memory to decode one image, by its header and as enforced; more is a reject."""

    max_scans: Positive = 100
    """Maximum scans of a progressive JPEG; more is a reject. Encoders write about ten."""

    decode_timeout_s: Seconds = 10.0
    """Maximum CPU seconds to decode one image; more is a reject."""

    connect_timeout_s: Seconds = 5.0
    """Connect timeout, in seconds."""

    timeout_s: Seconds = 20.0
    """Timeout of one try of a download, in seconds."""

    retries: Whole = 3
    """Retries after transient errors, with exponential backoff."""

    concurrency: Positive = 16
    """Parallel downloads per worker."""

    revisit: Literal["never", "changed", "always"] = "never"
    """Whether a run asks again for URLs that an earlier run has fetched, or found to give no image; once per run.

    - `never`: no request, and a picture that a shop replaces under the same URL stays as it was.
    - `changed`: one request per URL, with the `ETag` of the last answer, or its `Last-Modified` if it had no `ETag`. A
      server that answers 304 sends no body. A URL whose answer had neither is downloaded again. A server whose
      validators do not change with the picture hides the change.
    - `always`: each URL is downloaded again, which costs as much as the first run.

    A final error, such as 404, replaces the image, which is gone. One that may pass, such as a time-out, keeps it, and
    costs `retries` each time."""

    allow_private: bool = False
    """Whether URLs may resolve to private, loopback or link-local addresses. False: SSRF protection."""

    root: str | None = Field(default=None, repr=False)
    """Folder or URI that is the base of relative references; null: the folder of the source file. Rows may reference
    any file below it."""

    allow: Listed[str] = Field(default=(), repr=False)
    """Absolute folders and store URIs below which rows may reference files, in addition to `root` and the folder of
    their source."""

    headers: dict[str, str] = Field(default={}, repr=False)
    """Request headers for downloads, such as `User-Agent` and `Referer`; by default the User-Agent names this package.
    `${NAME}` in a value is replaced by an environment variable of the job. Credentials (`Authorization`,
    `Cookie`, names with key, token or the like, values from the environment) are only sent to `credential_hosts`, over
    https, and not after a redirect to another host."""

    credential_hosts: Listed[str] = ()
    """Hosts that receive headers with credentials, subdomains included. Names without a port. Credentials are only sent
    over https, unless `allow_private` is true: then over http too."""

    @model_validator(mode="after")
    def _safe_headers(self) -> Self:
        check_headers(self.headers)
        credentials = [name for name, value in self.headers.items() if is_credential(name, value)]
        if credentials and not self.credential_hosts:
            raise ValueError(
                f"headers {', '.join(credentials)} are credentials; name the hosts that receive them in"
                " images.credential_hosts, since a data set may name any host"
            )
        for host in self.credential_hosts:
            try:
                ascii_host(host)
            except ValueError as error:
                raise ValueError(f"credential_hosts: {error}") from None
        return self

    @model_validator(mode="after")
    def _known_roots(self) -> Self:
        for name, place in (("root", self.root), *(("allow", one) for one in self.allow)):
            scheme, mark, rest = (place or "").partition("://")
            if mark and scheme.lower() not in _ROOT_SCHEMES:
                known = ", ".join(_ROOT_SCHEMES)
                raise ValueError(f"{name}: {public_uri(place or '')} is no folder and no URI of a store ({known})")
            if name == "allow" and not rest and not scheme.startswith("/"):
                raise ValueError(f"allow: {scheme!r} should be an absolute folder or the URI of a store")
        return self
