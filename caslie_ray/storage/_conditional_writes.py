"""Create a file only if it is absent, atomically, on every kind of store that a run may be on.

pyarrow's file systems have no such call. Local file systems have hard links and exclusive opens. Object stores have
conditional puts, which `obstore` sends: ``If-None-Match: *`` on S3 and Azure, ``ifGenerationMatch=0`` on GCS.
"""

from __future__ import annotations

import re

import pyarrow.fs as pafs

from caslie_ray.errors import RunError, StoreError
from caslie_ray.storage._local_files import create_file
from caslie_ray.storage._obstore_clients import obstore_client
from caslie_ray.storage.filesystems import innermost, local_path
from caslie_ray.storage.redaction import brief

__all__ = ["create_if_absent"]

_UNKNOWN_CONDITION = {"NotImplemented", "InvalidArgument"}
_NO_CONDITION = (
    "this store has no conditional puts (If-None-Match), which a run needs so that one job at a time works on it: use"
    " another store or a shared directory"
)


def create_if_absent(filesystem: pafs.FileSystem, path: str, data: bytes) -> bool:
    """Create a file unless it exists; return whether this call created it.

    If the response of an object store is lost, the caller must read the file to know whose it is.

    Args:
        filesystem: of the file.
        path: its path on `filesystem`.
        data: its content.

    Raises:
        RunError: the store has no conditional puts, ignores the condition, or has no such bucket.
        OSError: the store refuses or does not answer; a subclass that `with_retries` knows.
    """
    if (local := local_path(filesystem, path)) is not None:
        return create_file(local, data)
    filesystem, path = innermost(filesystem, path)
    bucket, _, key = path.partition("/")

    import obstore  # only needed by the process that claims a run
    from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError

    store = obstore_client(filesystem, bucket)
    created = False
    try:
        # The second put must fail: a store that ignores the condition would give the run to every job.
        obstore.put(store, key, data, mode="create", use_multipart=False)
        created = True
        obstore.put(store, key, data, mode="create", use_multipart=False)
    except AlreadyExistsError:
        return created
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(f"no permission to create it ({_reason(error)})") from error
    except FileNotFoundError as error:
        raise StoreError(
            f"cannot write {path}: there is no bucket {bucket}; create the bucket or correct its name, and run the same"
            " command again"
        ) from error
    except ValueError as error:
        raise RunError(f"cannot write {path}: {brief(error)}; name the run by another path") from error
    except BaseError as error:
        if (reason := _reason(error)) in _UNKNOWN_CONDITION:
            raise RunError(f"{_NO_CONDITION}; it answers {reason}") from error
        raise ConnectionError(reason) from error
    raise RunError(f"{_NO_CONDITION}; it ignores the header")


def _reason(error: Exception) -> str:
    """Return the error code in a store's response, or else the first line of the error."""
    code = re.search(r"<Code>(\w+)</Code>", str(error))
    return code[1] if code else brief(error)
