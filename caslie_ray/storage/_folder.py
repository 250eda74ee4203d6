"""A folder on a store: atomic writes and retried reads, under the lease of a job."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from caslie_ray.errors import DamagedFile, RunError, RunLost, StoreError
from caslie_ray.storage._atomic_writes import delete_file, put_object, replace_on_file_system
from caslie_ray.storage._fixes import fix_for
from caslie_ray.storage.filesystems import is_object_store
from caslie_ray.storage.lease_files import LEASE, Fence, lease_path
from caslie_ray.storage.redaction import brief, public_uri
from caslie_ray.storage.retries import DEFAULT_RETRIES, RetryPolicy, with_retries

__all__ = ["Folder"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Folder:
    """Files under a path of a store. All methods retry while an object store does not answer.

    Attributes:
        fs: the file system. Direct uses of it go through `with_retries`.
        root: its path on `fs`.
        uri: the path or URI that the user gave.
        retry_policy: how long to retry.
        fence: the lease that its writers work under; None if no job holds one.
        lease_root: the root whose lease applies, if not its own.
    """

    fs: pafs.FileSystem
    root: str
    uri: str = field(repr=False)
    retry_policy: RetryPolicy = field(default=DEFAULT_RETRIES, compare=False, repr=False)
    fence: Fence | None = field(default=None, compare=False, repr=False)
    lease_root: str = field(default="", compare=False, repr=False)

    def path(self, *parts: str) -> str:
        """Return a path inside the folder."""
        return posixpath.join(self.root, *parts)

    @property
    def label(self) -> str:
        """The URI without credentials and options."""
        return public_uri(self.uri)

    @property
    def lease_folder(self) -> str:
        """Path of the folder with the lease files."""
        return posixpath.join(self.lease_root or self.root, LEASE)

    def with_retries(self, verb: str, path: str, action: Callable[[], _T]) -> _T:
        """Return what an action on the store returns; see `caslie_ray.storage.retries.with_retries`.

        Raises:
            StoreError: the store or the operating system refuses, or does not answer.
            OSError, pa.ArrowException: other errors of the action.
        """
        try:
            return with_retries(self.fs, verb, path, action, self.retry_policy)
        except OSError as error:
            # Without an errno it is Arrow's own error about the content of a file.
            if error.errno is None or isinstance(error, FileNotFoundError):
                raise
            raise StoreError(
                f"cannot {verb} {path}: {brief(error)}; fix that and run the same command again"
            ) from error

    def info(self, paths: Sequence[str]) -> list[pafs.FileInfo]:
        """Return the file info of paths, in order; type NotFound for those that do not exist."""
        if not paths:
            return []
        found: list[pafs.FileInfo] = self.with_retries("look up", paths[0], lambda: self.fs.get_file_info(list(paths)))
        return found

    def listed(self, folder: str) -> list[pafs.FileInfo]:
        """List a folder, not recursively; empty if it does not exist."""
        selector = pafs.FileSelector(folder, allow_not_found=True)
        found: list[pafs.FileInfo] = self.with_retries("list", folder, lambda: self.fs.get_file_info(selector))
        return found

    def check_lease(self) -> None:
        """Check that no other job has taken over the run; without a lease nothing is checked.

        Raises:
            RunLost: one has.
        """
        if self.fence is None:
            return
        claim = lease_path(self.lease_folder, self.fence.epoch + 1, "json")
        if self.info([claim])[0].type != pafs.FileType.NotFound:
            raise RunLost(f"another job has taken over {self.label} ({claim}): this one writes and deletes no more")

    def put(self, path: str, data: pa.Buffer | bytes) -> None:
        """Write a file atomically; on a local disk it also survives a power cut.

        Raises:
            RunError: the store is full or refuses.
            RunLost: another job has taken over the run.
        """
        self.check_lease()
        if is_object_store(self.fs):
            content = memoryview(data)
            self.with_retries("write", path, lambda: put_object(self.fs, path, content))
            return
        try:
            replace_on_file_system(self.fs, path, data)
        except OSError as error:
            raise StoreError(
                f"cannot write {path}: {brief(error)}; nothing of it was kept, fix that and run again"
            ) from error

    def delete(self, paths: Iterable[str]) -> None:
        """Delete files; those that do not exist are no error.

        Raises:
            RunLost: another job has taken over the run.
        """
        for path in paths:
            self.check_lease()
            self.with_retries("delete", path, lambda path=path: delete_file(self.fs, path))  # type: ignore[misc]

    def delete_folder(self, path: str) -> None:
        """Delete a folder with its content; one that does not exist is no error.

        Raises:
            RunLost: another job has taken over the run.
        """
        self.check_lease()

        def delete() -> None:
            with suppress(FileNotFoundError):
                self.fs.delete_dir(path)

        self.with_retries("delete", path, delete)

    def read_bytes(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            RunError: it does not exist, or the store does not return it.
        """

        def read() -> bytes:
            with self.fs.open_input_stream(path, compression=None) as stream:
                data: bytes = stream.read()
            return data

        try:
            return self.with_retries("read", path, read)
        except OSError as error:
            raise RunError(f"cannot read {path}: {brief(error)}; fix that and run the same command again") from error

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as indented JSON to a file named relative to the root."""
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        self.put(self.path(name), text.encode() + b"\n")

    def read_json(self, name: str) -> Any:
        """Return the value in a JSON file named relative to the root; None if it does not exist.

        Raises:
            DamagedFile: it is not JSON.
        """
        path = self.path(name)
        if self.info([path])[0].type == pafs.FileType.NotFound:
            return None
        text = self.read_bytes(path)
        try:
            return json.loads(text)
        except ValueError as error:
            raise DamagedFile(f"cannot read {path}: {brief(error)}; {fix_for(path)}", path) from error
