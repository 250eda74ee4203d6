"""Create a file only if it is absent, in one atomic step, on every kind of store that a run may live on.

pyarrow's file systems have no such call. Local file systems have hard links and exclusive opens. Object stores have
conditional puts, which `obstore` makes: ``If-None-Match: *`` on S3 and Azure, ``ifGenerationMatch=0`` on GCS. S3 is
tested on a local server; GCS and Azure follow the documentation of obstore and were not run.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow.fs as pafs

from caslie_ray.errors import RunError, StoreError
from caslie_ray.storage.local_files import create_file, local_path
from caslie_ray.storage.stores import brief, innermost

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["create_if_absent"]

# Whoever calls retries, and looks whose file it is between two attempts.
_NO_RETRIES: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=15)}
_TIMEOUTS = {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(seconds=15)}
# Arrow's S3 client does not read HTTP_PROXY and HTTPS_PROXY. To name a proxy stops obstore from reading them, and none
# is used for the excluded addresses: all.
_NO_PROXY = {"proxy_url": "http://127.0.0.1:9", "proxy_excludes": "*,0.0.0.0/0,::/0"}
_UNKNOWN_CONDITION = {"NotImplemented", "InvalidArgument"}
_NO_CONDITION = (
    "this store has no conditional puts (If-None-Match), which a run needs so that one job at a time works on it: use"
    " another store or a shared directory"
)


def create_if_absent(filesystem: pafs.FileSystem, path: str, data: bytes) -> bool:
    """Create a file with its content unless there is one; return whether this call created it.

    Where an answer of an object store is lost, the caller has to read the file to know whose it is.

    Args:
        filesystem: where.
        path: its path on `filesystem`.
        data: its content.

    Raises:
        RunError: the store has no such operation, ignores the condition, or has no such bucket.
        OSError: the store refuses or does not answer, as one of the subclasses that `stores.patiently` tells apart.
    """
    if (local := local_path(filesystem, path)) is not None:
        return create_file(local, data)
    filesystem, path = innermost(filesystem, path)
    bucket, _, key = path.partition("/")

    import obstore  # only the process that claims a run needs it
    from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError

    store = _object_store(filesystem, bucket)
    created = False
    try:
        # The second put is to fail: a store that ignores the condition would let every job have the run.
        obstore.put(store, key, data, mode="create", use_multipart=False)
        created = True
        obstore.put(store, key, data, mode="create", use_multipart=False)
    except AlreadyExistsError:
        return created
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(f"no permission to create it ({_reason(error)})") from error
    except FileNotFoundError as error:
        raise StoreError(
            f"cannot write {path}: there is no bucket {bucket}; make the bucket or correct its name, and run the same"
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
    """Return the error code in a store's answer; else the first line, which is long."""
    code = re.search(r"<Code>(\w+)</Code>", str(error))
    return code[1] if code else brief(error)


def _object_store(filesystem: pafs.FileSystem, bucket: str) -> ObjectStore:
    """Return obstore's store with the address and the credentials of a file system of pyarrow's."""
    # __reduce__ returns the constructor's arguments, and is the only way to ask for all of them.
    if isinstance(filesystem, pafs.S3FileSystem):
        return _s3(filesystem.__reduce__()[1][0], bucket)
    if isinstance(filesystem, pafs.GcsFileSystem):
        return _gcs(filesystem.__reduce__()[1][0], bucket)
    if isinstance(filesystem, pafs.AzureFileSystem):
        return _azure(filesystem.__reduce__()[1][0], bucket)
    raise RunError(
        f"a run cannot live on a store of type {filesystem.type_name}, which cannot create a file only if it is"
        " absent: use a directory, s3://, gs:// or abfs://"
    )


def _s3(settings: dict[str, Any], bucket: str) -> ObjectStore:
    from obstore.store import S3Store

    given: dict[str, Any] = {"region": settings["region"]}
    proxy = settings["proxy_options"]
    given["client_options"] = {**_TIMEOUTS, "allow_http": True}
    given["client_options"] |= {"proxy_url": _proxy(proxy)} if proxy["host"] else _NO_PROXY
    host = settings["endpoint_override"].rpartition("://")[2]
    if not host and settings["region"].startswith("cn-"):
        host = f"s3.{settings['region']}.amazonaws.com.cn"
    if settings["force_virtual_addressing"]:
        given["virtual_hosted_style_request"] = True
        host = host and f"{bucket}.{host}"  # obstore adds the bucket to paths only
    if host:
        given["endpoint"] = f"{settings['scheme']}://{host}"
    if settings["tls_ca_file_path"]:
        with open(settings["tls_ca_file_path"], "rb") as file:
            given["client_options"]["root_certificate"] = file.read()
    if settings["anonymous"]:
        given["skip_signature"] = True
    elif settings["access_key"]:
        # Not as values of the store, which would add a session token from the environment to them.
        keys = {"access_key_id": settings["access_key"], "secret_access_key": settings["secret_key"]}
        keys |= {"token": settings["session_token"] or None, "expires_at": None}
        given["credential_provider"] = lambda: keys
    elif settings["role_arn"]:
        given["credential_provider"] = _role(settings)
    elif (provider := _boto3_credentials()) is not None:
        given["credential_provider"] = provider
    return S3Store(bucket, retry_config=_NO_RETRIES, **given)


def _proxy(settings: dict[str, Any]) -> str:
    """Return the URL of a proxy as pyarrow names it."""
    user = quote(settings["username"], safe="")
    user = f"{user}:{quote(settings['password'], safe='')}@" if user else ""
    return f"{settings['scheme']}://{user}{settings['host']}:{settings['port']}"


def _boto3_credentials() -> Any:
    """Return the credentials that boto3 finds; None leaves it to obstore, which reads no profiles of ``~/.aws``."""
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return Boto3CredentialProvider()
    except (ImportError, ValueError):  # boto3 is not installed, or finds none
        return None


def _role(settings: dict[str, Any]) -> Any:
    try:
        from obstore.auth.boto3 import StsCredentialProvider
    except ImportError as error:
        raise RunError("a run under role_arn needs boto3: pip install boto3") from error
    names = {"RoleArn": "role_arn", "RoleSessionName": "session_name", "ExternalId": "external_id"}
    return StsCredentialProvider(**{name: settings[key] for name, key in names.items() if settings[key]})


def _gcs(settings: dict[str, Any], bucket: str) -> ObjectStore:
    from obstore.store import GCSStore

    if settings["target_service_account"]:
        raise RunError("a run on gs:// cannot impersonate a service account: use credentials of that account itself")
    given: dict[str, Any] = {"client_options": {**_TIMEOUTS, "allow_http": settings["scheme"] == "http"}}
    if settings["endpoint_override"]:
        given["base_url"] = f"{settings['scheme'] or 'https'}://{settings['endpoint_override']}"
    if settings["anonymous"]:
        given["skip_signature"] = True
    elif settings["access_token"]:
        given["bearer_token"] = settings["access_token"]
    return GCSStore(bucket, retry_config=_NO_RETRIES, **given)


def _azure(settings: dict[str, Any], bucket: str) -> ObjectStore:
    from obstore.store import AzureStore

    given: dict[str, Any] = {"account_name": settings["account_name"]}
    given["client_options"] = {**_TIMEOUTS, "allow_http": settings["blob_storage_scheme"] == "http"}
    if not settings["blob_storage_authority"].startswith("."):  # an emulator; the account is a part of the path
        address = f"{settings['blob_storage_scheme']}://{settings['blob_storage_authority']}"
        given["endpoint"] = f"{address}/{settings['account_name']}"
    names = {"account_key": "account_key", "client_id": "client_id", "client_secret": "client_secret"}
    names |= {"tenant_id": "tenant_id", "sas_token": "sas_key"}
    given |= {name: settings[key] for key, name in names.items() if settings[key]}
    return AzureStore(bucket, retry_config=_NO_RETRIES, **given)
