"""Objects as files of one volume: written beside it, made durable, then moved into place."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path

from ocelli_storage.layout import TENANTS
from ocelli_storage.object_store import ObjectStore
from ocelli_store.usage import Reservation, Usage

_CHUNK_BYTES = 64 * 1024
"""What a write holds in memory."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class VolumeFullError(Exception):
    """The volume has no room for what is written."""


class KeyTakenError(Exception):
    """The key is a prefix of others, or goes through one that is none."""


class ObjectFolder:
    """A folder with `objects/`, and `incoming/` for what is being written."""

    def __init__(self, root: Path, namespace_quota_bytes: int | None = None) -> None:
        """With a quota every object of every tenant is looked at. Raises OSError."""
        self._objects = root / "objects"
        self._incoming = root / "incoming"
        # What a killed process left behind. There is one process: nobody else writes there now.
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)
        self.listing = ObjectStore.from_url(self._objects.as_uri())
        """The same objects as a store: for listings."""
        # Held to move or delete a file, with a look at how large the one was that goes, and to make or delete its folders.
        self._changing = threading.Lock()
        self.usage = Usage(namespace_quota_bytes)
        if namespace_quota_bytes is not None:
            self._count()

    def path_of(self, key: str) -> Path | None:
        """The file under a valid key, None where there is none."""
        path = self._objects / key
        return path if path.is_file() else None

    def free_bytes(self) -> int:
        """What is left of the volume."""
        return shutil.disk_usage(self._objects).free

    def check_writable(self) -> None:
        """Write and delete a file. Raises OSError."""
        probe = self._incoming / f"probe-{uuid.uuid4().hex}"
        probe.write_bytes(b"\0")
        probe.unlink()

    async def write(self, key: str, body: AsyncIterator[bytes], declared_bytes: int = 0) -> None:
        """Store a body under a valid key: all of it, or nothing where the body breaks off.

        For `declared_bytes` room is sought before any of them is taken; for what is beyond them, as it comes.

        Raises:
            QuotaExceededError, VolumeFullError, KeyTakenError, OSError: see there.
        """
        incoming, target = self._incoming / uuid.uuid4().hex, self._objects / key
        with self.usage.reserved(key, declared_bytes) as reservation:
            try:
                size_bytes = await self._receive(incoming, body, reservation)
                replaced_bytes = await asyncio.to_thread(self._move, incoming, target)
                reservation.keep(size_bytes, replaced_bytes)
                await asyncio.to_thread(_sync_folder, target.parent)
            except OSError as error:
                if error.errno in _FULL:
                    raise VolumeFullError(f"the volume of the store is full ({self.free_bytes()} bytes are free)") from error
                if isinstance(error, (IsADirectoryError, NotADirectoryError, FileExistsError)):
                    raise KeyTakenError(f"{key!r} is a prefix of other keys, or goes through one") from error
                raise
            finally:
                with suppress(FileNotFoundError):
                    incoming.unlink()

    async def delete(self, key: str) -> None:
        """Delete what lies under a valid key; nothing there is no error. Raises OSError."""
        size_bytes = await asyncio.to_thread(self._take_away, self._objects / key)
        if size_bytes is not None:
            self.usage.remove(key, size_bytes)

    async def _receive(self, path: Path, body: AsyncIterator[bytes], reservation: Reservation) -> int:
        """Write a body to a file, and say how large it is."""
        size_bytes = 0
        with await asyncio.to_thread(path.open, "wb") as file:
            buffer = bytearray()
            async for chunk in body:
                size_bytes += len(chunk)
                reservation.grow_to(size_bytes)
                buffer += chunk
                if len(buffer) >= _CHUNK_BYTES:
                    await asyncio.to_thread(file.write, bytes(buffer))
                    buffer.clear()
            await asyncio.to_thread(_finish, file, bytes(buffer))
        return size_bytes

    def _move(self, source: Path, target: Path) -> int | None:
        """Move a file into place, and say how large the one was that it replaces."""
        with self._changing:
            target.parent.mkdir(parents=True, exist_ok=True)
            replaced_bytes = _size_of(target)
            source.replace(target)
        return replaced_bytes

    def _take_away(self, path: Path) -> int | None:
        """Delete a file with the folders that only it was in, and say how large it was; None where there is none."""
        with self._changing:
            size_bytes = _size_of(path)
            if size_bytes is None:
                return None
            path.unlink()
            # Up to the first that has more in it.
            with suppress(OSError):
                for folder in path.parents:
                    if folder == self._objects:
                        break
                    folder.rmdir()
        return size_bytes

    def _count(self) -> None:
        def refuse(error: OSError) -> None:
            raise error

        if not (self._objects / TENANTS).is_dir():
            return
        start = len(f"{self._objects}{os.sep}")
        for folder, _, names in os.walk(self._objects / TENANTS, onerror=refuse):
            for name in names:
                path = os.path.join(folder, name)
                self.usage.add(path[start:], os.stat(path).st_size)


def _size_of(path: Path) -> int | None:
    """How large a file is, None where there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _sync_folder(path: Path) -> None:
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        # A deletion at this moment took it away with what was moved there.
        return
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _finish(file: BufferedWriter, rest: bytes) -> None:
    file.write(rest)
    file.flush()
    os.fsync(file.fileno())
