"""Objects as files of one volume. Each is written to a temporary file, synced to disk, then moved into place.

It must not know HTTP, or who may do what.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import BufferedWriter, FileIO
from pathlib import Path

from ocelli_storage.layout import TENANTS
from ocelli_storage.object_store import StoredObject
from ocelli_store.access import is_key
from ocelli_store.usage import Reservation, Usage

_CHUNK_BYTES = 64 * 1024
"""The memory that one write takes."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class VolumeFullError(Exception):
    """The volume is full."""


class KeyTakenError(Exception):
    """The key is a prefix of an existing key, or an existing key is a prefix of it."""


class ObjectFolder:
    """A folder with `objects/`, and with `incoming/` for writes in progress."""

    def __init__(self, root: Path, namespace_quota_bytes: int | None = None) -> None:
        """With a quota, every object of every tenant is read once to count it. Raises OSError."""
        self._objects = root / "objects"
        self._incoming = root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        # Delete what a killed process left. No other process writes here. The folder itself stays, because a full volume might
        # have no room to create it again.
        for path in self._incoming.iterdir():
            path.unlink()
        self._objects.mkdir(exist_ok=True)
        _sync_folder(root)
        # Held while a file is moved or deleted, with its folders, so that the size of the replaced file is right.
        self._changing = threading.Lock()
        self.usage = Usage(namespace_quota_bytes)
        if namespace_quota_bytes is not None:
            for key, status in self._walk(TENANTS):
                self.usage.add(key, status.st_size)

    def open(self, key: str) -> tuple[FileIO, os.stat_result] | None:
        """The object at a valid key, opened, with its status; None if there is none. Raises OSError."""
        try:
            file = FileIO(self._objects / key)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return file, os.fstat(file.fileno())

    def list_objects(self, prefix: str) -> list[StoredObject]:
        """Every object below a valid prefix, in no order. Raises OSError."""
        return [
            StoredObject(key=key, size_bytes=status.st_size, modified_at=datetime.fromtimestamp(status.st_mtime, UTC))
            for key, status in self._walk(prefix)
        ]

    def list_folders(self, prefix: str) -> list[str]:
        """The names one level below a valid prefix that have objects below them. Raises OSError."""
        try:
            with os.scandir(self._objects / prefix) as entries:
                return [entry.name for entry in entries if entry.is_dir() and is_key(entry.name)]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def free_bytes(self) -> int:
        """Free bytes of the volume."""
        return shutil.disk_usage(self._objects).free

    def size_bytes(self) -> int:
        """Size of the volume."""
        return shutil.disk_usage(self._objects).total

    def check_volume(self) -> None:
        """Write and delete a file. Raises OSError if the volume does not work.

        A full volume works: its objects can be read, and must be deletable.
        """
        probe = self._incoming / f"probe-{uuid.uuid4().hex}"
        try:
            probe.write_bytes(b"\0")
        except OSError as error:
            if error.errno not in _FULL:
                raise
        finally:
            probe.unlink(missing_ok=True)

    async def write(self, key: str, body: AsyncIterator[bytes], declared_bytes: int = 0) -> None:
        """Store a body at a valid key: all of it, or nothing if the body is cut off.

        The quota for `declared_bytes` is reserved before the body is read, and for further bytes as they arrive.

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
                    raise KeyTakenError(
                        f"{key!r} is a prefix of another key, or another key is a prefix of it; use another key"
                    ) from error
                raise
            finally:
                with suppress(FileNotFoundError):
                    incoming.unlink()

    async def delete(self, key: str) -> None:
        """Delete the object at a valid key durably. Does nothing if there is none. Raises OSError."""
        path = self._objects / key
        size_bytes = await asyncio.to_thread(self._remove, path)
        if size_bytes is not None:
            self.usage.remove(key, size_bytes)
        # Also if there was none: another deletion of it may not be on the disk yet.
        await asyncio.to_thread(_sync_folder, path.parent)

    async def _receive(self, path: Path, body: AsyncIterator[bytes], reservation: Reservation) -> int:
        """Write a body to a file, and return its size."""
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
        """Move a file into place, and return the size of the file that it replaces.

        Folders that it needs are synced to disk before another write uses them.
        """
        made: list[Path] = []
        with self._changing:
            try:
                for folder in _missing_folders(target.parent):
                    folder.mkdir()
                    made.append(folder)
                for folder in made:
                    _sync_folder(folder.parent)
                replaced_bytes = _size_of(target)
                source.replace(target)
            except OSError:
                # A volume may have room for folders but not for their contents. Nothing else would delete these folders.
                for folder in reversed(made):
                    with suppress(OSError):
                        folder.rmdir()
                raise
        return replaced_bytes

    def _remove(self, path: Path) -> int | None:
        """Delete a file and the folders that become empty, and return its size; None if there is no file."""
        with self._changing:
            size_bytes = _size_of(path)
            if size_bytes is None:
                return None
            path.unlink()
            # Up to the first one that is not empty.
            with suppress(OSError):
                for folder in path.parents:
                    if folder == self._objects:
                        break
                    folder.rmdir()
        return size_bytes

    def _walk(self, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        """Key and status of every file below a prefix that is an object."""
        start = len(f"{self._objects}{os.sep}")
        for folder, _, names in os.walk(self._objects / prefix, onerror=_ignore_missing):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    status = os.stat(path)
                except FileNotFoundError:
                    continue
                # A file that was not written by this server may have a name that is not a key.
                if stat.S_ISREG(status.st_mode) and is_key(path[start:]):
                    yield path[start:], status


def _ignore_missing(error: OSError) -> None:
    """A file may be deleted while its folder is listed. With any other error ignored, a partial listing would look complete."""
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error


def _size_of(path: Path) -> int | None:
    """The size of a file; None if there is none."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _missing_folders(path: Path) -> list[Path]:
    """The folders that must be created for a path, the outermost first."""
    missing: list[Path] = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    return missing[::-1]


def _sync_folder(path: Path) -> None:
    """Sync the entries of a folder to disk; if it is gone, those of its nearest existing parent."""
    for folder in (path, *path.parents):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            continue
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return


def _finish(file: BufferedWriter, rest: bytes) -> None:
    file.write(rest)
    file.flush()
    os.fsync(file.fileno())
