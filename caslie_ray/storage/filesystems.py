"""Opening paths and URIs as pyarrow file systems."""

from __future__ import annotations

import posixpath
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from caslie_ray.errors import RunError
from caslie_ray.storage.redaction import open_failure, public_uri

__all__ = ["innermost", "is_object_store", "local_path", "open_path"]

_OBJECT_STORES = ("s3", "gcs", "abfs")
# Arrow's defaults of 1 and 3 s give up on a busy store that answers after 4. The second is the time without a byte, not
# the time of the whole response.
_CONNECT_S, _SILENCE_S = 10.0, 15.0
# Arrow's default is 15 minutes.
_GCS_RETRY_S = 20


def open_path(path: str) -> tuple[pafs.FileSystem, str]:
    """Return the file system of a local path or URI, and the path on it.

    Raises:
        RunError: the URI's scheme is unknown or its credentials are refused; the message does not show them.
    """
    if "://" not in path:
        return pafs.LocalFileSystem(), str(Path(path).expanduser().absolute())
    uri = path
    if path.startswith("s3://"):
        # One put per file that fits in memory, instead of a multipart upload.
        uri = _with_option(uri, "allow_delayed_open", "true")
    elif path.startswith(("gs://", "gcs://")):
        uri = _with_option(uri, "retry_limit_seconds", str(_GCS_RETRY_S))
    try:
        filesystem, inner = pafs.FileSystem.from_uri(uri)
        if isinstance(filesystem, pafs.S3FileSystem):
            filesystem = _with_timeouts(filesystem)
    except (OSError, ValueError, pa.ArrowException) as error:
        # Arrow quotes the URI; `from None` keeps it out of tracebacks too.
        raise RunError(f"cannot open {public_uri(path)}: {open_failure(path, uri, error)}") from None
    return filesystem, inner


def is_object_store(filesystem: pafs.FileSystem) -> bool:
    """Return whether files appear only when complete, and a rename is a copy."""
    return innermost(filesystem, "")[0].type_name.removeprefix("py::fsspec+") in _OBJECT_STORES


def innermost(filesystem: pafs.FileSystem, path: str) -> tuple[pafs.FileSystem, str]:
    """Unwrap `SubTreeFileSystem`: return the file system below, and the path on it."""
    while isinstance(filesystem, pafs.SubTreeFileSystem):
        path = posixpath.join(filesystem.base_path, path.lstrip("/"))
        filesystem = filesystem.base_fs
    return filesystem, path


def local_path(filesystem: pafs.FileSystem, path: str) -> str | None:
    """Return a path as the operating system has it; None if the file system is not a local one."""
    filesystem, path = innermost(filesystem, path)
    return path if isinstance(filesystem, pafs.LocalFileSystem) else None


def _with_option(uri: str, name: str, value: str) -> str:
    return uri if f"{name}=" in uri else f"{uri}{'&' if '?' in uri else '?'}{name}={value}"


def _with_timeouts(filesystem: pafs.S3FileSystem) -> pafs.S3FileSystem:
    """Return the same file system with longer timeouts, for which a URI has no options."""
    settings = filesystem.__reduce__()[1][0]  # the constructor's arguments; there is no other way to read them all
    return pafs.S3FileSystem(**{**settings, "connect_timeout": _CONNECT_S, "request_timeout": _SILENCE_S})
