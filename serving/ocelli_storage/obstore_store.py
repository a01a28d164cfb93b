"""Objects in a folder or a bucket, through `obstore`.

Credentials of buckets come from the environment variables that `obstore` reads: `AWS_ACCESS_KEY_ID`,
`AWS_ENDPOINT_URL`, `AWS_WEB_IDENTITY_TOKEN_FILE`, `GOOGLE_SERVICE_ACCOUNT_KEY`, `AZURE_STORAGE_ACCOUNT_NAME` and so on.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
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
    check_range,
    collect_chunks,
)

_log = logging.getLogger(__name__)

_RETRIES_LIMIT = 1000
_MAX_CONCURRENT_PARTS = 2
"""Parts of 5 MB that one write keeps in memory; `obstore` would keep 12."""

_CHUNK_BYTES = 1024 * 1024
_FOLDER_ERROR = "Generic LocalFileSystem error"
_STATUS = re.compile(r"status code: ([0-9]{3})")
_OS_ERROR = re.compile(r"\(os error ([0-9]+)\)")
_RETRIED_STATUSES = frozenset({408, 429})
"""Timeouts and throttling: the same request may succeed later."""

_BUCKETS = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
BUCKET_SCHEMES = tuple(_BUCKETS)


class ObstoreStore(ObjectStore):
    """A folder or a bucket."""

    def __init__(self, store: LocalStore | S3Store | GCSStore | AzureStore, url: str) -> None:
        self._store = store
        self.url = url

    @classmethod
    def open_folder(cls, url: str) -> ObstoreStore:
        """The folder of a `file:///folder` URL. It is created if it does not exist. Raises StoreConfigurationError."""
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise StoreConfigurationError(f"object store: {url!r} is not a file:///folder URL; set such a URL")
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
            StoreConfigurationError: the URL has no bucket, or an environment variable of the cloud has an invalid value.
        """
        parts = urlsplit(url)
        if not parts.netloc:
            raise StoreConfigurationError(
                f"object store: {url!r} has no bucket; set {parts.scheme}://BUCKET or {parts.scheme}://BUCKET/PREFIX"
            )
        prefix = parts.path.strip("/") or None
        # Time is the limit. By default it would be ten retries, which take at most two minutes.
        retries = {"retry_timeout": timedelta(seconds=retry_limit_seconds), "max_retries": _RETRIES_LIMIT}
        # A store inside the cluster has no certificate; its address is set explicitly.
        plain = {"allow_http": True}
        try:
            store = _BUCKETS[parts.scheme](parts.netloc, prefix=prefix, client_options=plain, retry_config=retries)
        except (BaseError, ValueError) as error:
            _log.warning("bucket cannot be opened", extra={"url": url, "cause": _first_line(error)})
            raise StoreConfigurationError(
                f"object store: the settings of {url!r} are not valid; correct the URL or the environment variables of its "
                "credentials (the log has the cause)"
            ) from error
        return cls(store, url)

    async def get(self, key: str, *, limit_bytes: int) -> bytes:
        with _errors("read", key):
            result = await obstore.get_async(self._store, key)
            chunks = (bytes(chunk) async for chunk in result.stream(min_chunk_size=_CHUNK_BYTES))
            return await collect_chunks(key, chunks, size_bytes=result.meta["size"], limit_bytes=limit_bytes)

    async def get_range(self, key: str, *, offset: int, length: int) -> bytes:
        if not length:
            return b""
        with _errors("read", key):
            return check_range(key, bytes(await obstore.get_range_async(self._store, key, start=offset, length=length)), length)

    async def open_read(self, key: str, chunk_bytes: int = _CHUNK_BYTES) -> AsyncIterator[bytes]:
        with _errors("read", key):
            result = await obstore.get_async(self._store, key)
            async for chunk in result.stream(min_chunk_size=chunk_bytes):
                yield bytes(chunk)

    async def put(self, key: str, data: bytes | Path) -> None:
        if isinstance(data, Path):
            # An error of the local file must not look like one of the store.
            data.open("rb").close()
        with _errors("write", key):
            await obstore.put_async(self._store, key, data, max_concurrency=_MAX_CONCURRENT_PARTS)

    async def size_of(self, key: str) -> int:
        with _errors("look up", key):
            return int((await obstore.head_async(self._store, key))["size"])

    async def list_objects(self, prefix: str) -> list[StoredObject]:
        found: list[StoredObject] = []
        with _errors("list", prefix):
            async for chunk in obstore.list(self._store, prefix=prefix):
                found.extend(
                    StoredObject(key=item["path"], size_bytes=item["size"], modified_at=item["last_modified"]) for item in chunk
                )
        return found

    async def list_folders(self, prefix: str) -> list[str]:
        with _errors("list", prefix):
            result = await obstore.list_with_delimiter_async(self._store, prefix=prefix)
        return [path.rstrip("/").rsplit("/", 1)[-1] for path in result["common_prefixes"]]

    async def delete(self, key: str) -> None:
        with suppress(ObjectNotFoundError), _errors("delete", key):
            await obstore.delete_async(self._store, key)


@contextmanager
def _errors(verb: str, key: str) -> Iterator[None]:
    """Raise the store's errors for those of obstore."""
    try:
        yield
    except FileNotFoundError as error:
        if verb == "write":
            fact = "the bucket does not exist; create it, or correct its URL"
            raise StoreUnavailableError(f"object store: could not write {key!r}: {fact}") from error
        raise ObjectNotFoundError(key) from error
    except BaseError as error:
        _log.info("object store failed", extra={"verb": verb, "key": key, "cause": _first_line(error)})
        fact, unreachable = _describe(str(error))
        kind = StoreUnreachableError if unreachable and isinstance(error, GenericError) else StoreUnavailableError
        raise kind(f"object store: could not {verb} {key!r}: {fact}") from error


def _describe(text: str) -> tuple[str, bool]:
    """Fact and remedy for an error of obstore, and whether the store could not be reached. A folder always can."""
    system_error = _OS_ERROR.search(text)
    # Errors of a bucket do not contain one.
    if text.startswith(_FOLDER_ERROR) or system_error:
        cause = f" ({os.strerror(int(system_error[1]))})" if system_error else ""
        return f"the folder cannot be used{cause}; check its volume and its permissions", False
    answer = _STATUS.search(text)
    if answer is None:
        return "no answer; check that the bucket's address is right and can be reached", True
    status = int(answer[1])
    if status in _RETRIED_STATUSES or status >= 500:
        return f"the server of the bucket answered {status}; try again later", True
    if status in (401, 403):
        return f"the server of the bucket answered {status}; check the credentials and their permissions", False
    return f"the server of the bucket answered {status}; check the bucket and its settings", False


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
