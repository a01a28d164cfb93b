"""What every object store can do, and how it fails. It knows keys and bytes, and not what they mean.

`store_url.open_store` opens one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

RETRY_LIMIT_SECONDS = 30.0
"""How long a store repeats a request that got no answer: the embedded store is one Pod, and restarts."""


class ObjectStoreError(Exception):
    """The store cannot do what it was asked to."""


class ObjectNotFoundError(ObjectStoreError):
    """Nothing lies under the key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"object store: nothing lies under {key!r}")
        self.key = key


class ObjectTooLargeError(ObjectStoreError):
    """What lies under the key has more bytes than its reader takes."""

    def __init__(self, key: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"object store: {key!r} has {size_bytes:,} bytes, and at most {limit_bytes:,} are read")
        self.key = key
        self.size_bytes = size_bytes
        """As the store says, or what was read until it was too much."""
        self.limit_bytes = limit_bytes


class StoreUnavailableError(ObjectStoreError):
    """The store did not answer, or refused: trying again later may help."""


class StoreUnreachableError(StoreUnavailableError):
    """No answer came, or one that says that nobody is there to give it: what was asked for has nothing to do with it."""


class StoreQuotaError(StoreUnavailableError):
    """The namespace has no room for what is written: trying again is in vain until something of it was deleted."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"object store: could not write {key!r}: {message}")
        self.message = message
        """The store's own sentence: namespace, quota, use, remedy."""


class StoreConfigurationError(ObjectStoreError):
    """The URL names no store that Ocelli can use."""


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """What a listing says of one object."""

    key: str
    size_bytes: int
    modified_at: datetime


class ObjectStore(ABC):
    """Objects by key. Every write is atomic: a reader sees the old bytes or the new ones, never a part."""

    url: str

    @abstractmethod
    async def get(self, key: str, *, limit_bytes: int) -> bytes:
        """The bytes under a key, all in memory: whoever may write there must not decide how much of it that takes.

        Raises:
            ObjectNotFoundError, ObjectTooLargeError, StoreUnavailableError: see there.
        """

    @abstractmethod
    def open_read(self, key: str, chunk_bytes: int = 1024 * 1024) -> AsyncIterator[bytes]:
        """The bytes under a key in chunks, never all in memory.

        Raises:
            ObjectNotFoundError, StoreUnavailableError: see there.
        """

    @abstractmethod
    async def put(self, key: str, data: bytes | Path) -> None:
        """Store bytes, or the contents of a local file (streamed), under a key.

        Raises:
            StoreQuotaError, StoreUnavailableError: see there.
            OSError: the local file cannot be read.
        """

    async def exists(self, key: str) -> bool:
        """Whether something lies under the key. Raises StoreUnavailableError."""
        try:
            await self.size_of(key)
        except ObjectNotFoundError:
            return False
        return True

    @abstractmethod
    async def size_of(self, key: str) -> int:
        """How many bytes lie under the key. Errors as `open_read`."""

    @abstractmethod
    async def list_objects(self, prefix: str) -> list[StoredObject]:
        """Every object below a prefix (whole path segments), in no order. Raises StoreUnavailableError."""

    @abstractmethod
    async def list_folders(self, prefix: str) -> list[str]:
        """The names one level below a prefix that have objects below them. Raises StoreUnavailableError."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Delete what lies under a key; nothing there is no error. Raises StoreUnavailableError."""

    async def delete_prefix(self, prefix: str) -> int:
        """Delete every object below a prefix and say how many there were. Raises StoreUnavailableError."""
        objects = await self.list_objects(prefix)
        for item in objects:
            await self.delete(item.key)
        return len(objects)


async def collect_chunks(key: str, chunks: AsyncIterator[bytes], *, size_bytes: int, limit_bytes: int) -> bytes:
    """All chunks of an object that claims a size. For implementations of `ObjectStore.get`. Raises ObjectTooLargeError."""
    if size_bytes > limit_bytes:
        raise ObjectTooLargeError(key, size_bytes, limit_bytes)
    data = bytearray()
    async for chunk in chunks:
        data += chunk
        # What was claimed is not believed.
        if len(data) > limit_bytes:
            raise ObjectTooLargeError(key, len(data), limit_bytes)
    return bytes(data)
