"""obstore clients with the address, credentials and proxy of pyarrow file systems.

S3 is tested on a local server; GCS and Azure follow obstore's documentation and were not run.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow.fs as pafs

from caslie_ray.errors import RunError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["obstore_client"]

# The caller retries: between two attempts it reads whose file it is.
_NO_RETRIES: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=15)}
_TIMEOUTS = {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(seconds=15)}
# Arrow's S3 client ignores HTTP_PROXY and HTTPS_PROXY. A named proxy stops obstore from reading them, and excluding all
# addresses keeps it unused.
_NO_PROXY = {"proxy_url": "http://127.0.0.1:9", "proxy_excludes": "*,0.0.0.0/0,::/0"}


def obstore_client(filesystem: pafs.FileSystem, bucket: str) -> ObjectStore:
    """Return a client for a bucket of a file system.

    Raises:
        RunError: there is no client for this kind of file system, or for these settings.
    """
    # __reduce__ returns the constructor's arguments; there is no other way to read them all.
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
        # Passed as configuration, obstore would add a session token from the environment to them.
        keys = {"access_key_id": settings["access_key"], "secret_access_key": settings["secret_key"]}
        keys |= {"token": settings["session_token"] or None, "expires_at": None}
        given["credential_provider"] = lambda: keys
    elif settings["role_arn"]:
        given["credential_provider"] = _role(settings)
    elif (provider := _boto3_credentials()) is not None:
        given["credential_provider"] = provider
    return S3Store(bucket, retry_config=_NO_RETRIES, **given)


def _proxy(settings: dict[str, Any]) -> str:
    """Return the URL of a proxy from pyarrow's settings."""
    user = quote(settings["username"], safe="")
    user = f"{user}:{quote(settings['password'], safe='')}@" if user else ""
    return f"{settings['scheme']}://{user}{settings['host']}:{settings['port']}"


def _boto3_credentials() -> Any:
    """Return a provider of the credentials that boto3 finds; None: leave it to obstore, which reads no ``~/.aws``."""
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
    if not settings["blob_storage_authority"].startswith("."):  # an emulator: the account is part of the path
        address = f"{settings['blob_storage_scheme']}://{settings['blob_storage_authority']}"
        given["endpoint"] = f"{address}/{settings['account_name']}"
    names = {"account_key": "account_key", "client_id": "client_id", "client_secret": "client_secret"}
    names |= {"tenant_id": "tenant_id", "sas_token": "sas_key"}
    given |= {name: settings[key] for key, name in names.items() if settings[key]}
    return AzureStore(bucket, retry_config=_NO_RETRIES, **given)
