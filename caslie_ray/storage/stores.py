"""Where files live: this machine or an object store, and how long a store that does not answer is waited for.

An object store has seconds in which it answers 500, asks to slow down, or says nothing. Arrow asks each request
three times; what still fails is done again as a whole, see `patiently`. What no waiting mends ends at once.
"""

from __future__ import annotations

import io
import logging
import posixpath
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

from caslie_ray.errors import NoAnswer, RunError, StoreError

__all__ = [
    "ABOUT_A_MINUTE",
    "Patience",
    "brief",
    "innermost",
    "is_object_store",
    "open_path",
    "open_ranges",
    "patiently",
    "public_uri",
    "without_credentials",
]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_OBJECT_STORES = ("s3", "gcs", "abfs")
# Arrow's own are 1 and 3 seconds, so that a busy store that answers after 4 is never heard. The second is the time
# without a byte, and not that of the whole answer.
_CONNECT_S, _SILENCE_S = 10.0, 15.0
# Arrow's own is a quarter of an hour.
_GCS_RETRY_S = 20
# Each is a request.
_RANGE = 8 << 20
# A job that seems to stand still says why.
_TELL_AFTER_S = 5.0

_S3 = re.compile(r"AWS Error (\w+)(?: \(HTTP status (-?\d+)\))?")
_GCS = re.compile(r"google::cloud::Status\((\w+)")
_AZURE = re.compile(r"Azure Error: \[(\w*)\](?: (\d{3}))?")
_PASSING = {
    *("SLOW_DOWN", "THROTTLING", "INTERNAL_FAILURE", "SERVICE_UNAVAILABLE", "NETWORK_CONNECTION", "REQUEST_TIMEOUT"),
    *("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL", "ABORTED"),
}
_LOCKED = re.compile(
    r"access.?denied|access.?key|signature|token|permission|authoriz|authenticat|HTTP status 40[13]", re.I
)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]+")
# An authority of these may have a port; one of the others has a colon only in front of a password.
_WITH_PORTS = ("hdfs", "viewfs", "http", "https")
# Options of a URI that name no credential, so that a message may show their values.
_PLAIN_OPTIONS = {
    *("scheme", "endpoint_override", "region", "retry_limit_seconds", "allow_delayed_open", "enable_tls"),
    *("blob_storage_authority", "dfs_storage_authority", "blob_storage_scheme", "dfs_storage_scheme"),
}
_SHORTEST_SECRET = 4
_NO_BUCKET = re.compile(r"no.?such.?bucket|container.?not.?found|bucket does not exist", re.I)


@dataclass(frozen=True)
class Patience:
    """How long a store that does not answer is asked again.

    Attributes:
        total_s: seconds after which no other attempt is made; the last one may end later.
        first_s: seconds between the first two attempts at most; twice as many from one to the next.
        longest_s: seconds between two attempts at most.
    """

    total_s: float = 60.0
    first_s: float = 0.5
    longest_s: float = 8.0


ABOUT_A_MINUTE = Patience()
"""What a run has with its store."""


def open_path(path: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a local path or URI, and the path within it.

    Raises:
        RunError: the URI's scheme is unknown or its credentials are refused; the message does not show them.
    """
    if "://" not in path:
        return pafs.LocalFileSystem(), str(Path(path).expanduser().absolute())
    uri = path
    if path.startswith("s3://"):
        # A file that fits in memory is then one put, and not an upload of several parts.
        uri = _with_option(uri, "allow_delayed_open", "true")
    elif path.startswith(("gs://", "gcs://")):
        uri = _with_option(uri, "retry_limit_seconds", str(_GCS_RETRY_S))
    try:
        filesystem, inner = pafs.FileSystem.from_uri(uri)
        if isinstance(filesystem, pafs.S3FileSystem):
            filesystem = _patient_s3(filesystem)
    except (OSError, ValueError, pa.ArrowException) as error:
        # Arrow quotes the URI; without a cause, no traceback shows it either.
        raise RunError(f"cannot open {public_uri(path)}: {_without_secrets_of(path, uri, error)}") from None
    return filesystem, inner


def public_uri(location: str) -> str:
    """Return a path as it is, and a URI without user info and options: fit for messages and for tables.

    User info whose special characters are not percent-encoded is recognised too. A location that has a password and
    an ``@`` in its path loses the path up to there.
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
    """Return a text with the public form of each URI in it."""
    return _URI.sub(lambda found: public_uri(found[0]), text)


def _without_secrets_of(location: str, opened: str, error: Exception) -> str:
    """Return why a location cannot be opened, in one line, without anything secret of the location."""
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


def _with_option(uri: str, name: str, value: str) -> str:
    return uri if f"{name}=" in uri else f"{uri}{'&' if '?' in uri else '?'}{name}={value}"


def _patient_s3(filesystem: pafs.S3FileSystem) -> pafs.S3FileSystem:
    """Return the same file system with other time limits, for which a URI has no words.

    What it pickles as is what its constructor takes: the only way to ask it for all of its settings.
    """
    settings = filesystem.__reduce__()[1][0]
    return pafs.S3FileSystem(**{**settings, "connect_timeout": _CONNECT_S, "request_timeout": _SILENCE_S})


def is_object_store(filesystem: pafs.FileSystem) -> bool:
    """Whether files show only once they are whole, and a rename is a copy."""
    return innermost(filesystem, "")[0].type_name.removeprefix("py::fsspec+") in _OBJECT_STORES


def innermost(filesystem: pafs.FileSystem, path: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system that others only show a folder of, and a path as it has it."""
    while isinstance(filesystem, pafs.SubTreeFileSystem):
        path = posixpath.join(filesystem.base_path, path.lstrip("/"))
        filesystem = filesystem.base_fs
    return filesystem, path


def patiently(
    filesystem: pafs.FileSystem, verb: str, path: str, action: Callable[[], _T], patience: Patience = ABOUT_A_MINUTE
) -> _T:
    """Return what an action on a store returns; while an object store does not answer, it is done again.

    Other file systems answer, or do not, once.

    Args:
        filesystem: where the action goes.
        verb: what it does to the path, such as ``read``, for messages.
        path: what it is done to.
        action: may be done again after it failed half-way, even where the store did what was asked.
        patience: how long to go on.

    Raises:
        NoAnswer: the store did not answer in time.
        StoreError: it refuses.
        OSError, pa.ArrowException: what else the action raises, such as that a file is not there or not whole.
    """
    begun = time.monotonic()
    pause_s = patience.first_s
    told = False
    while True:
        try:
            return action()
        except (OSError, pa.ArrowException) as error:
            said = _said(error) if is_object_store(filesystem) else None
            if said is None:
                raise
            passing = _passes(error, said)
            waited_s = time.monotonic() - begun
            if not passing:
                raise StoreError(f"cannot {verb} {path}: {brief(error)}; {_mend(said)}") from error
            if waited_s >= patience.total_s:
                raise NoAnswer(
                    f"cannot {verb} {path}: the store did not answer in {waited_s:.0f} s of asking again"
                    f" ({brief(error)}); run the same command again once it does, what is finished is kept"
                ) from error
            if waited_s >= _TELL_AFTER_S and not told:
                told = True
                log.warning("the store does not answer, asking again to %s %s: %s", verb, path, brief(error))
        # Many workers that failed together must not come back together.
        time.sleep(min(pause_s * random.uniform(0.5, 1.0), patience.total_s - waited_s))
        pause_s = min(2 * pause_s, patience.longest_s)


def open_ranges(
    filesystem: pafs.FileSystem, path: str, patience: Patience = ABOUT_A_MINUTE, buffer: int = _RANGE
) -> io.BufferedReader:
    """Open a file of an object store so that a read in the middle of it is done again as `patiently` does.

    Args:
        filesystem: the object store.
        path: the file.
        patience: how long to retry.
        buffer: bytes of a request, at least.

    Raises:
        StoreError: the store did not answer in time, or refuses; reading raises it too.
        OSError: the file is not there.
    """
    return io.BufferedReader(_Ranges(filesystem, path, patience), buffer)


class _Ranges(io.RawIOBase):
    """A file that is read a range at a time; ranges know nothing of one another."""

    def __init__(self, filesystem: pafs.FileSystem, path: str, patience: Patience) -> None:
        self._where = (filesystem, "read", path)
        self._patience = patience
        self._file = self._ask(lambda: filesystem.open_input_file(path))
        self._size = int(self._ask(lambda: self._file.size()))
        self._at = 0

    def _ask(self, action: Callable[[], _T]) -> _T:
        return patiently(*self._where, action, self._patience)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        length = max(0, min(len(buffer), self._size - self._at))
        data: bytes = self._ask(lambda: self._file.read_at(length, self._at)) if length else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()


def _said(error: Exception) -> str | None:
    """Return what an object store said, from its own words on; None where it is not the store that failed."""
    if isinstance(error, FileNotFoundError):
        return None
    for store in (_S3, _GCS, _AZURE):
        if found := store.search(str(error)):
            return str(error)[found.start() :]
    return brief(error) if isinstance(error, (ConnectionError, PermissionError, TimeoutError)) else None


def _passes(error: Exception, said: str) -> bool:
    """Whether an object store may do a moment later what it did not do now."""
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    if found := _S3.match(said):
        return found[1] in _PASSING or (found[2] is not None and _status_passes(int(found[2])))
    if found := _GCS.match(said):
        return found[1] in _PASSING
    if found := _AZURE.match(said):
        return _status_passes(int(found[2] or 0))
    return False


def _status_passes(status: int) -> bool:
    # Without an answer there is no status.
    return status <= 0 or status in (408, 429) or status >= 500


def _mend(said: str) -> str:
    if _NO_BUCKET.search(said):
        return "make the bucket or correct its name, and run the same command again"
    if _LOCKED.search(said):
        return "check the credentials and what they may do there, and run the same command again"
    return "mend that and run the same command again"


def brief(error: Exception) -> str:
    """Return why something failed, in one line and without credentials."""
    return without_credentials(_first_line(str(error) or type(error).__name__))


def _first_line(text: str) -> str:
    """Arrow reports some errors on many lines, and the first one has the cause."""
    return text.split("\n")[0].strip().removesuffix(":")
