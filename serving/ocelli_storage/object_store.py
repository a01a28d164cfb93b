"""The object store behind one URL, through `obstore`. It knows keys and bytes, and nothing of what they mean."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore

_PARTS_AT_ONCE = 2
"""Parts of 5 MB that one write keeps in memory; `obstore` would keep 12."""


class ObjectStoreError(Exception):
    """The store cannot do what it was asked to."""


class ObjectNotFoundError(ObjectStoreError):
    """Nothing lies under the key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"object store: nothing lies under {key!r}")
        self.key = key


class StoreUnavailableError(ObjectStoreError):
    """The store did not answer, or refused: trying again later may help."""


class StoreConfigurationError(ObjectStoreError):
    """The URL names no store that Ocelli can use."""


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """What a listing says of one object."""

    key: str
    size_bytes: int
    modified_at: datetime


class ObjectStore:
    """Objects by key. Every write is atomic: a reader sees the old bytes or the new ones, never a part."""

    def __init__(self, store: LocalStore, url: str) -> None:
        self._store = store
        self.url = url

    @classmethod
    def from_url(cls, url: str) -> ObjectStore:
        """Open the store at a URL: `file:///folder`, which is made where it is missing.

        Raises:
            StoreConfigurationError: the URL names no such store.
        """
        parts = urlsplit(url)
        if parts.scheme != "file" or parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise StoreConfigurationError(f"object store: {url!r} is no file:///folder URL; set one")
        folder = Path(unquote(parts.path))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return cls(LocalStore(folder, automatic_cleanup=True), url)
        except (OSError, BaseError) as error:
            raise StoreConfigurationError(f"object store: {url!r} cannot be used: {error}; name a writable folder") from error

    async def get(self, key: str) -> bytes:
        """The bytes under a key.

        Raises:
            ObjectNotFoundError, StoreUnavailableError: see there.
        """
        try:
            result = await obstore.get_async(self._store, key)
            return bytes(await result.bytes_async())
        except FileNotFoundError as error:
            raise ObjectNotFoundError(key) from error
        except BaseError as error:
            raise _unavailable("read", key, error) from error

    async def open_read(self, key: str, chunk_bytes: int = 1024 * 1024) -> AsyncIterator[bytes]:
        """The bytes under a key in chunks, never all in memory. Errors as `get`."""
        try:
            result = await obstore.get_async(self._store, key)
            async for chunk in result.stream(min_chunk_size=chunk_bytes):
                yield bytes(chunk)
        except FileNotFoundError as error:
            raise ObjectNotFoundError(key) from error
        except BaseError as error:
            raise _unavailable("read", key, error) from error

    async def put(self, key: str, data: bytes | Path) -> None:
        """Store bytes, or the contents of a local file (streamed), under a key.

        Raises:
            StoreUnavailableError: see there.
        """
        try:
            await obstore.put_async(self._store, key, data, max_concurrency=_PARTS_AT_ONCE)
        except BaseError as error:
            raise _unavailable("write", key, error) from error

    async def exists(self, key: str) -> bool:
        """Whether something lies under the key. Raises StoreUnavailableError."""
        try:
            await obstore.head_async(self._store, key)
        except FileNotFoundError:
            return False
        except BaseError as error:
            raise _unavailable("look up", key, error) from error
        return True

    async def size_of(self, key: str) -> int:
        """How many bytes lie under the key. Errors as `get`."""
        try:
            return int((await obstore.head_async(self._store, key))["size"])
        except FileNotFoundError as error:
            raise ObjectNotFoundError(key) from error
        except BaseError as error:
            raise _unavailable("look up", key, error) from error

    async def list_objects(self, prefix: str) -> list[StoredObject]:
        """Every object below a prefix (whole path segments), in no order. Raises StoreUnavailableError."""
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
        """The names one level below a prefix that have objects below them. Raises StoreUnavailableError."""
        try:
            result = await obstore.list_with_delimiter_async(self._store, prefix=prefix)
        except BaseError as error:
            raise _unavailable("list", prefix, error) from error
        return [path.rstrip("/").rsplit("/", 1)[-1] for path in result["common_prefixes"]]

    async def delete(self, key: str) -> None:
        """Delete what lies under a key; nothing there is no error. Raises StoreUnavailableError."""
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            return
        except BaseError as error:
            raise _unavailable("delete", key, error) from error

    async def delete_prefix(self, prefix: str) -> int:
        """Delete every object below a prefix and say how many there were. Raises StoreUnavailableError."""
        objects = await self.list_objects(prefix)
        for item in objects:
            await self.delete(item.key)
        return len(objects)


def _unavailable(verb: str, key: str, error: BaseError) -> StoreUnavailableError:
    return StoreUnavailableError(f"object store: could not {verb} {key!r}: {error}")
