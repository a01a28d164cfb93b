"""Objects in a folder or a bucket, through `obstore`.

Credentials of buckets come from the environment, by the variables that `obstore` reads: `AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL`, `AWS_WEB_IDENTITY_TOKEN_FILE`, `GOOGLE_SERVICE_ACCOUNT_KEY`, `AZURE_STORAGE_ACCOUNT_NAME` and so on.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, GenericError
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

from ocelli_storage.object_store import (
    RETRY_LIMIT_SECONDS,
    ObjectNotFoundError,
    ObjectStore,
    StoreConfigurationError,
    StoredObject,
    StoreUnavailableError,
    StoreUnreachableError,
    collect_chunks,
)

_RETRIES_LIMIT = 1000
_MAX_CONCURRENT_PARTS = 2
"""Parts of 5 MB that one write keeps in memory; `obstore` would keep 12."""

_CHUNK_BYTES = 1024 * 1024
_FOLDER_ERROR = "Generic LocalFileSystem error"
_REFUSED = re.compile(r"status code: 4(?!08|29)[0-9][0-9]")
"""Time-outs and throttling are not refusals: the same request may succeed later."""

_BUCKETS = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
BUCKET_SCHEMES = tuple(_BUCKETS)


class ObstoreStore(ObjectStore):
    """A folder or a bucket."""

    def __init__(self, store: LocalStore | S3Store | GCSStore | AzureStore, url: str) -> None:
        self._store = store
        self.url = url

    @classmethod
    def open_folder(cls, url: str) -> ObstoreStore:
        """The folder of a `file:///folder` URL, which is made where it is missing. Raises StoreConfigurationError."""
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise StoreConfigurationError(f"object store: {url!r} is not a file:///folder URL; set one")
        folder = Path(unquote(parts.path))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return cls(LocalStore(folder, automatic_cleanup=True), url)
        except (OSError, BaseError) as error:
            cause = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
            raise StoreConfigurationError(f"object store: {url!r} cannot be used{cause}; name a writable folder") from error

    @classmethod
    def open_bucket(cls, url: str, *, retry_limit_seconds: float = RETRY_LIMIT_SECONDS) -> ObstoreStore:
        """The bucket, or the prefix in it, of an `s3://`, `gs://` or `az://` URL.

        Raises:
            StoreConfigurationError: it names no bucket, or a variable of its cloud has an impossible value.
        """
        parts = urlsplit(url)
        if not parts.netloc:
            raise StoreConfigurationError(f"object store: {url!r} names no bucket; set {parts.scheme}://BUCKET or …/PREFIX")
        prefix = parts.path.strip("/") or None
        # The time is the limit: by default ten tries are, which are over after two minutes.
        retries = {"retry_timeout": timedelta(seconds=retry_limit_seconds), "max_retries": _RETRIES_LIMIT}
        # A store inside the cluster has no certificate; whoever sets such an address has chosen so.
        plain = {"allow_http": True}
        try:
            store = _BUCKETS[parts.scheme](parts.netloc, prefix=prefix, client_options=plain, retry_config=retries)
        except (BaseError, ValueError) as error:
            raise StoreConfigurationError(
                f"object store: {url!r} cannot be used: {error}; correct the URL or the variables of its credentials"
            ) from error
        return cls(store, url)

    async def get(self, key: str, *, limit_bytes: int) -> bytes:
        try:
            result = await obstore.get_async(self._store, key)
            chunks = (bytes(chunk) async for chunk in result.stream(min_chunk_size=_CHUNK_BYTES))
            return await collect_chunks(key, chunks, size_bytes=result.meta["size"], limit_bytes=limit_bytes)
        except FileNotFoundError as error:
            raise ObjectNotFoundError(key) from error
        except BaseError as error:
            raise _unavailable("read", key, error) from error

    async def open_read(self, key: str, chunk_bytes: int = _CHUNK_BYTES) -> AsyncIterator[bytes]:
        try:
            result = await obstore.get_async(self._store, key)
            async for chunk in result.stream(min_chunk_size=chunk_bytes):
                yield bytes(chunk)
        except FileNotFoundError as error:
            raise ObjectNotFoundError(key) from error
        except BaseError as error:
            raise _unavailable("read", key, error) from error

    async def put(self, key: str, data: bytes | Path) -> None:
        try:
            await obstore.put_async(self._store, key, data, max_concurrency=_MAX_CONCURRENT_PARTS)
        except BaseError as error:
            raise _unavailable("write", key, error) from error

    async def size_of(self, key: str) -> int:
        try:
            return int((await obstore.head_async(self._store, key))["size"])
        except FileNotFoundError as error:
            raise ObjectNotFoundError(key) from error
        except BaseError as error:
            raise _unavailable("look up", key, error) from error

    async def list_objects(self, prefix: str) -> list[StoredObject]:
        found: list[StoredObject] = []
        try:
            async for chunk in obstore.list(self._store, prefix=prefix):
                found.extend(
                    StoredObject(key=item["path"], size_bytes=item["size"], modified_at=item["last_modified"]) for item in chunk
                )
        except BaseError as error:
            raise _unavailable("list", prefix, error) from error
        return found

    async def list_folders(self, prefix: str) -> list[str]:
        try:
            result = await obstore.list_with_delimiter_async(self._store, prefix=prefix)
        except BaseError as error:
            raise _unavailable("list", prefix, error) from error
        return [path.rstrip("/").rsplit("/", 1)[-1] for path in result["common_prefixes"]]

    async def delete(self, key: str) -> None:
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            return
        except BaseError as error:
            raise _unavailable("delete", key, error) from error


def _unavailable(verb: str, key: str, error: BaseError) -> StoreUnavailableError:
    text = str(error)
    # A folder has no answer to wait for, and a refusal is one.
    unreachable = isinstance(error, GenericError) and not text.startswith(_FOLDER_ERROR) and _REFUSED.search(text) is None
    kind = StoreUnreachableError if unreachable else StoreUnavailableError
    return kind(f"object store: could not {verb} {key!r}: {text}")
