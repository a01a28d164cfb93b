"""The interface of every object store, and its errors. It must not know what keys and bytes mean.

`store_url.open_store` opens one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

RETRY_LIMIT_SECONDS = 30.0
"""How long a store retries a request without an answer: the embedded store is one Pod, and can restart."""


class ObjectStoreError(Exception):
    """The store cannot do what was requested."""


class ObjectNotFoundError(ObjectStoreError):
    """There is no object at the key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"object store: there is no object {key!r}")
        self.key = key


class ObjectTooLargeError(ObjectStoreError):
    """The object is larger than its reader accepts."""

    def __init__(self, key: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"object store: {key!r} has {size_bytes:,} bytes; the limit is {limit_bytes:,}")
        self.key = key
        self.size_bytes = size_bytes
        """The declared size, or the number of bytes read until the limit was exceeded."""
        self.limit_bytes = limit_bytes


class StoreUnavailableError(ObjectStoreError):
    """The store did not answer, or refused the request. A later attempt may succeed."""


class StoreUnreachableError(StoreUnavailableError):
    """There was no answer, or a proxy answered that the store is not reachable. The request is not the cause."""


class StoreQuotaError(StoreUnavailableError):
    """The quota of the namespace is exceeded. A write can succeed only after objects were deleted."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"object store: could not write {key!r}: {message}")
        self.message = message
        """The store's own message: namespace, quota, usage, remedy."""


class StoreConfigurationError(ObjectStoreError):
    """The URL is not one of a store that Ocelli can use."""


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """An object in a listing."""

    key: str
    size_bytes: int
    modified_at: datetime


class ObjectStore(ABC):
    """Objects by key. Writes are atomic: a reader gets the old bytes or the new ones, never a part."""

    url: str

    @abstractmethod
    async def get(self, key: str, *, limit_bytes: int) -> bytes:
        """The bytes of an object, all in memory. The limit keeps users who can write the object from exhausting memory.

        Raises:
            ObjectNotFoundError, ObjectTooLargeError, StoreUnavailableError: see there.
        """

    @abstractmethod
    async def get_range(self, key: str, *, offset: int, length: int) -> bytes:
        """`length` bytes of an object from an offset. The object must have them all.

        Raises:
            ObjectNotFoundError: see there.
            StoreUnavailableError: see there; or the object is shorter.
        """

    @abstractmethod
    def open_read(self, key: str, chunk_bytes: int = 1024 * 1024) -> AsyncIterator[bytes]:
        """The bytes of an object in chunks, never all in memory.

        Raises:
            ObjectNotFoundError, StoreUnavailableError: see there.
        """

    @abstractmethod
    async def put(self, key: str, data: bytes | Path) -> None:
        """Store bytes, or the contents of a local file (streamed), at a key.

        Raises:
            StoreQuotaError, StoreUnavailableError: see there.
            OSError: the local file cannot be read.
        """

    async def exists(self, key: str) -> bool:
        """Whether there is an object at the key. Raises StoreUnavailableError."""
        try:
            await self.size_of(key)
        except ObjectNotFoundError:
            return False
        return True

    @abstractmethod
    async def size_of(self, key: str) -> int:
        """The size of an object. Errors as `open_read`."""

    @abstractmethod
    async def list_objects(self, prefix: str) -> list[StoredObject]:
        """Every object below a prefix (whole path segments), in no order. Raises StoreUnavailableError."""

    @abstractmethod
    async def list_folders(self, prefix: str) -> list[str]:
        """The names one level below a prefix that have objects below them. Raises StoreUnavailableError."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Delete the object at a key. Does nothing if there is none. Raises StoreUnavailableError."""

    async def delete_prefix(self, prefix: str) -> int:
        """Delete every object below a prefix, and return their number. Raises StoreUnavailableError."""
        objects = await self.list_objects(prefix)
        for item in objects:
            await self.delete(item.key)
        return len(objects)


def check_range(key: str, data: bytes, length: int) -> bytes:
    """The bytes of a range, for implementations of `ObjectStore.get_range`. Raises StoreUnavailableError."""
    if len(data) != length:
        raise StoreUnavailableError(f"object store: {key!r} ends before the range that was requested; read it again")
    return data


async def collect_chunks(key: str, chunks: AsyncIterator[bytes], *, size_bytes: int, limit_bytes: int) -> bytes:
    """All chunks of an object with a declared size, for implementations of `ObjectStore.get`. Raises ObjectTooLargeError."""
    if size_bytes > limit_bytes:
        raise ObjectTooLargeError(key, size_bytes, limit_bytes)
    data = bytearray()
    async for chunk in chunks:
        data += chunk
        # The declared size may be wrong.
        if len(data) > limit_bytes:
            raise ObjectTooLargeError(key, len(data), limit_bytes)
    return bytes(data)
