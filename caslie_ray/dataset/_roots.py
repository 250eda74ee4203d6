"""Roots of image references: the folders of this machine and prefixes of object stores that rows may name.

A reference that names a file leads below a root, or it is refused. A root is the folder of the source, `images.root`,
or an entry of `images.allow`, as the user wrote it. What a reference names is judged as text, ``..`` resolved, before
anything is looked up, so that a refusal does not tell whether the file exists; see `_files` for symbolic links. Of the
roots alone the links are resolved, once: a path may be written either way.

A file's locator has no credentials and no options: those of its root are used when it is opened.

==================================  ================================================================================
``file:<path>``                     an absolute path on this machine
``store:<scheme>://<bucket>/<key>``  an object in a store; ``store:<8 hex digits>:…`` where the root's URI has options
                                    that identify the store, such as an endpoint: the digits are their hash
==================================  ================================================================================
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from caslie_ray.hashing import content_id
from caslie_ray.profiles import ImageSettings
from caslie_ray.storage.redaction import public_uri

__all__ = ["STORES", "RefusedPath", "Root", "Roots", "find_root", "given_roots", "roots_of", "with_path"]

STORES = {"s3": "s3", "gs": "gs", "gcs": "gs", "abfs": "abfs", "abfss": "abfs", "hdfs": "hdfs", "viewfs": "viewfs"}
"""Schemes of stores, each with the name that all spellings share."""

_STORE_LOCATOR = re.compile(r"store:(?:([0-9a-f]{8}):)?([a-z0-9]+://[^/]*)(/.*)", re.DOTALL)
# They identify the store, and none is a credential.
_IDENTIFYING = ("endpoint_override", "scheme", "blob_storage_authority", "dfs_storage_authority")
_MEND = (
    "put it into the folder of the source or below images.root, or add its folder or prefix to images.allow if every"
    " row may read all of it"
)


class RefusedPath(ValueError):
    """A reference leads out of all roots; the message is a reject's reason and does not depend on what exists."""


@dataclass(frozen=True, slots=True)
class Root:
    """A folder or prefix that references may lead below.

    Attributes:
        uri: as the user wrote it, with credentials and options.
        store: scheme and bucket, such as ``s3://bucket``; empty for this machine.
        settings: hash of the options that identify the store; empty if there are none.
        path: absolute and normalised; in a store the key, after a slash.
        real: the path without symbolic links; in a store the same as `path`.
    """

    uri: str = field(repr=False)
    store: str
    settings: str
    path: str
    real: str = field(compare=False)

    @classmethod
    def of(cls, location: str) -> Root:
        """Return the root of an absolute or relative folder of this machine, or of a URI."""
        scheme, mark, _ = location.partition("://")
        if not mark:
            return cls._here(location, posixpath.normpath(str(Path(location).expanduser().absolute())))
        parts = urlsplit(location)
        path = _normalised(unquote(parts.path))
        if scheme.lower() == "file":
            return cls._here(location, path)
        options = sorted(part for part in parts.query.split("&") if part.partition("=")[0] in _IDENTIFYING)
        settings = content_id("&".join(options))[:8] if options else ""
        return cls(location, _store_of(scheme, parts.netloc), settings, path, path)

    @classmethod
    def _here(cls, location: str, path: str) -> Root:
        return cls(location, "", "", path, os.path.realpath(path))

    @property
    def identity(self) -> str:
        """The root without credentials: equal for the same place in the same store."""
        return f"{self.store}|{self.settings}|{self.path}"

    @property
    def top(self) -> str:
        """The URI of the bucket, with credentials and options."""
        return with_path(self.uri, "/")

    def holds(self, path: str) -> bool:
        """Whether a normalised path is that of the root, or lies below it."""
        return _is_below(path, self.path)

    def locator(self, path: str) -> str:
        """Return the locator of a normalised path."""
        if not self.store:
            return f"file:{path}"
        return f"store:{self.settings + ':' if self.settings else ''}{self.store}{path}"


@dataclass(frozen=True, slots=True)
class Roots:
    """What the references of one source may name.

    Attributes:
        base: where relative references start.
        allowed: all roots; the base is one only if it is among them.
    """

    base: Root
    allowed: tuple[Root, ...]

    def relative(self, path: str) -> str:
        """Return the locator of a path relative to the base.

        Raises:
            RefusedPath: it leads out of all roots.
        """
        joined = posixpath.normpath(posixpath.join(self.base.path, path))
        return self._judged(self.base.store, joined, self.base.settings)

    def absolute(self, path: str) -> str:
        """Return the locator of an absolute path on this machine.

        Raises:
            RefusedPath: it leads out of all roots.
        """
        return self._judged("", _normalised(path))

    def object(self, uri: str) -> str:
        """Return the locator of an object that a reference names by its URI.

        Raises:
            RefusedPath: it leads out of all roots, or has credentials or options.
        """
        scheme, _, rest = uri.partition("://")
        authority, _, key = rest.partition("/")
        user, at, _ = authority.rpartition("@")
        if "?" in rest or ":" in user or (at and STORES[scheme.lower()] != "abfs"):
            raise RefusedPath(
                "refused URI: a row may not give credentials or options of a store; give them with the source,"
                " images.root or images.allow, and the URI without them"
            )
        # Clients of stores resolve ".." too, and with it would leave the prefix, or even the bucket.
        return self._judged(_store_of(scheme, authority), _normalised(unquote(key)))

    def _judged(self, store: str, path: str, settings: str | None = None) -> str:
        roots = [root for root in self.allowed if root.store == store and settings in (None, root.settings)]
        found = [root for root in roots if root.holds(path) or _is_below(path, root.real)]
        if not found:
            what = "prefix" if store else "path"
            raise RefusedPath(f"refused {what}: it lies outside of what this source's rows may name; {_MEND}")
        return max(found, key=lambda root: len(root.path)).locator(path)


def given_roots(images: ImageSettings) -> tuple[Root, ...]:
    """Return `images.root`, if it is set, and then `images.allow`."""
    return tuple(Root.of(one) for one in (*([images.root] if images.root is not None else []), *images.allow))


def roots_of(file: str, source: str, from_root: bool, given: tuple[Root, ...]) -> Roots:
    """Return what the references of a source file may name.

    Args:
        file: the absolute path or URI of the file.
        source: the folder that was given as a source; empty where the file was.
        from_root: whether relative references start at the first of `given`, not at the file's folder.
        given: as `given_roots` returns them.
    """
    if "://" in file:
        folder = Root.of(with_path(file, posixpath.dirname(urlsplit(file).path)))
    else:
        folder = Root.of(posixpath.dirname(file))
    own = (folder, Root.of(source)) if source else (folder,)
    return Roots(given[0] if from_root else folder, (*own, *given))


def find_root(roots: Iterable[Root], locator: str) -> tuple[Root, str]:
    """Return the root with whose options an object is opened, and the path of the object in its store.

    Raises:
        RefusedPath: the locator leads out of all roots.
    """
    parts = _STORE_LOCATOR.fullmatch(locator)
    if parts is not None:
        settings, store, path = parts[1] or "", parts[2], parts[3]
        found = [one for one in roots if (one.store, one.settings) == (store, settings) and one.holds(path)]
        if found:
            return max(found, key=lambda root: len(root.path)), path
    raise RefusedPath(f"refused prefix: {public_uri(locator.removeprefix('store:'))} lies outside; {_MEND}")


def with_path(uri: str, path: str) -> str:
    """Return a URI with another path, percent-encoded, and the same options."""
    parts = urlsplit(uri)
    # Not urlunsplit: without a host, as in hdfs:///folder, it drops the slashes.
    return f"{parts.scheme}://{parts.netloc}{path}" + (f"?{parts.query}" if parts.query else "")


def _store_of(scheme: str, authority: str) -> str:
    """Return scheme and bucket. With Azure the name before the @ is a container or an account; it is kept."""
    name = STORES.get(scheme.lower(), scheme.lower())
    user, at, host = authority.rpartition("@")
    shown = user.partition(":")[0] + at if name == "abfs" else ""
    return f"{name}://{shown}{host}"


def _normalised(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
