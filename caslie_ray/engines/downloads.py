"""Hub checkpoints on this node's disk; each is downloaded once per node, by one process."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from caslie_ray.engines._hub_requests import with_retries
from caslie_ray.engines.load_errors import Kind, LoadError, LoadFailure, causes

__all__ = ["exclusive", "has_weights", "local_snapshot"]

log = logging.getLogger(__name__)

_SETTINGS = ["*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt"]
_WEIGHTS = ["*.safetensors"]
# Components of pipelines, and copies of weights and settings in Mistral's format.
_IGNORED = ["*/*", "consolidated*", "params.json"]
_GIB = 2.0**30
_LOG_EVERY_S = 60.0
_PAUSES_S = (2.0,)  # the hub's client retries requests of a download itself


def local_snapshot(checkpoint: str, commit: str, *, weights: bool = True) -> Path:
    """Return the folder of a hub checkpoint on this machine; missing files are downloaded.

    One process per node downloads while the others wait; if it dies, the next one resumes. A complete cache needs no
    request. Only safetensors weights, settings and tokenizer files are downloaded.

    Args:
        checkpoint: a hub id.
        commit: its revision, 40 hexadecimal digits.
        weights: whether to download weights, or only settings and tokenizer.

    Raises:
        LoadError: the hub refuses it or cannot be reached, or the disk is full.
    """
    from huggingface_hub import constants  # slow to import, and only a hub id needs it

    patterns = {"allow_patterns": _SETTINGS + (_WEIGHTS if weights else []), "ignore_patterns": _IGNORED}
    if (folder := _complete(checkpoint, commit, patterns)) is not None:
        return folder
    locks = Path(constants.HF_HUB_CACHE, ".locks", f"caslie--{checkpoint.replace('/', '--')}")
    with exclusive(locks / f"{commit}.lock", f"another process is downloading {checkpoint}"):
        if (folder := _complete(checkpoint, commit, patterns)) is not None:
            return folder
        return _download(checkpoint, commit, patterns, weights=weights)


def has_weights(checkpoint: str, commit: str) -> bool:
    """Return whether a hub checkpoint has safetensors weights, without downloading them.

    Raises:
        LoadError: neither the hub nor the cache has its settings or its list of files.
    """
    folder = local_snapshot(checkpoint, commit, weights=False)
    if any(folder.glob(_WEIGHTS[0])):
        return True
    if _is_listed(checkpoint, commit):
        return bool(_listed(checkpoint, commit, {"allow_patterns": _WEIGHTS, "ignore_patterns": _IGNORED}))
    # The cache is partial, or the list of files could not be written to it.
    paths = with_retries(lambda: _hub_list(checkpoint, commit), checkpoint, commit, _PAUSES_S)
    return any(path.endswith(".safetensors") and "/" not in path for path in paths)


@contextmanager
def exclusive(lock: Path, waiting: str) -> Iterator[None]:
    """Hold a file lock against other processes of this node; it is released when its process ends, even by SIGKILL.

    Without write access to the folder (a read-only cache), nothing can be downloaded and no lock is taken.

    Args:
        lock: the lock file.
        waiting: the log message while another process holds the lock.
    """
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
    if not os.access(lock.parent, os.W_OK):
        yield
        return
    file_lock = FileLock(lock, mode=0o666)
    while not file_lock.is_locked:
        try:
            file_lock.acquire(timeout=_LOG_EVERY_S, poll_interval=0.1)
        except Timeout:
            log.info("%s: waiting for it", waiting)
        except PermissionError:  # another user's lock; two downloads of the same files do no harm
            break
    try:
        yield
    finally:
        file_lock.release()


def _complete(checkpoint: str, commit: str, patterns: dict[str, list[str]]) -> Path | None:
    """Return the folder if the cache has every needed file; makes no request."""
    from huggingface_hub import get_cached_repo_tree, snapshot_download
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

    try:
        get_cached_repo_tree(checkpoint, revision=commit)
        return Path(snapshot_download(checkpoint, revision=commit, local_files_only=True, **_typed(patterns)))
    except (CachedRepoTreeNotFoundError, LocalEntryNotFoundError):
        return None


def _download(checkpoint: str, commit: str, patterns: dict[str, list[str]], *, weights: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()

    def fetch(wanted: dict[str, list[str]], needed: str) -> Path:
        def snapshot() -> Path:
            return Path(snapshot_download(checkpoint, revision=commit, **_typed(wanted)))

        folder = snapshot()
        if _is_listed(checkpoint, commit) or any(folder.glob(needed)):
            return folder
        # snapshot_download returns a partial folder when the hub fails and hides the error: provoke it.
        _hub_list(checkpoint, commit)
        folder = snapshot()
        if _is_listed(checkpoint, commit) or any(folder.glob(needed)):
            return folder
        mend = "run the job again later, or download it with hf download"
        raise LoadError(_partial("retry", checkpoint, commit, mend))

    try:
        # Settings first: that also fetches the list of all files and their sizes.
        settings = {**patterns, "allow_patterns": _SETTINGS}
        folder = with_retries(lambda: fetch(settings, "config.json"), checkpoint, commit, _PAUSES_S)
        if weights:
            size = sum(size for _, size in _listed(checkpoint, commit, patterns))
            if size - _stored(folder) > _free(folder):
                raise LoadError(_disk_full(checkpoint, commit, patterns))
            log.info("downloading %s (%.1f GiB)", checkpoint, size / _GIB)
            folder = with_retries(lambda: fetch(patterns, _WEIGHTS[0]), checkpoint, commit, _PAUSES_S)
    except LoadError as error:
        full = any(isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT) for link in causes(error))
        if full:
            raise LoadError(_disk_full(checkpoint, commit, patterns)) from error
        raise
    return folder


def _is_listed(checkpoint: str, commit: str) -> bool:
    """Return whether the cache has a checkpoint's file list, which shows what is missing."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        get_cached_repo_tree(checkpoint, revision=commit)
    except CachedRepoTreeNotFoundError:
        return False
    return True


def _hub_list(checkpoint: str, commit: str) -> list[str]:
    """Request the list of a checkpoint's files from the hub.

    Raises:
        LoadError: HF_HUB_OFFLINE is set.
        Exception: an error of the hub's client.
    """
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        mend = "set HF_HUB_OFFLINE=0, or download the checkpoint on this node first (hf download)"
        raise LoadError(_partial("elsewhere", checkpoint, commit, mend))
    return [entry.path for entry in HfApi().list_repo_tree(checkpoint, revision=commit)]


def _partial(kind: Kind, checkpoint: str, commit: str, mend: str) -> LoadFailure:
    from huggingface_hub import constants

    offline = ", and HF_HUB_OFFLINE is set" if kind == "elsewhere" else ""
    reason = f"{checkpoint} at revision {commit} is only partly in the cache {constants.HF_HUB_CACHE}{offline}"
    return LoadFailure(kind, reason, mend)


def _listed(checkpoint: str, commit: str, patterns: dict[str, list[str]]) -> list[tuple[str, int]]:
    """Return names and bytes of a checkpoint's files from the cached list; makes no request."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    try:
        files = get_cached_repo_tree(checkpoint, revision=commit)
    except CachedRepoTreeNotFoundError:
        return []
    wanted = filter_repo_objects(files, key=lambda file: file.path, **_typed(patterns))
    return [(file.path, file.size) for file in wanted]


def _disk_full(checkpoint: str, commit: str, patterns: dict[str, list[str]]) -> LoadFailure:
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    size = sum(size for _, size in _listed(checkpoint, commit, patterns)) / _GIB
    reason = f"{checkpoint} takes {size:.1f} GiB, and {cache} has {_free(cache) / _GIB:.1f} GiB free"
    return LoadFailure("elsewhere", reason, "free disk space on this node, or point HF_HOME at a larger disk")


def _stored(folder: Path) -> int:
    """Return the cached bytes of a checkpoint, of all revisions."""
    blobs = folder.parent.parent / "blobs"
    return sum(path.stat().st_size for path in blobs.glob("*") if path.is_file())


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _typed(patterns: dict[str, list[str]]) -> dict[str, Any]:
    return dict(patterns)
