"""Objects as files of one volume: written beside it, made durable, then moved into place."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from io import BufferedWriter
from pathlib import Path

from ocelli_storage.object_store import ObjectStore

_CHUNK_BYTES = 1024 * 1024
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class VolumeFullError(Exception):
    """The volume has no room for what is written."""


class KeyTakenError(Exception):
    """The key is a prefix of others, or goes through one that is none."""


class ObjectFolder:
    """A folder with `objects/`, and `incoming/` for what is being written."""

    def __init__(self, root: Path) -> None:
        self._objects = root / "objects"
        self._incoming = root / "incoming"
        # What a killed process left behind. There is one process: nobody else writes there now.
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)
        self.listing = ObjectStore.from_url(self._objects.as_uri())
        """The same objects as a store: for listings and deletions."""

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

    async def write(self, key: str, body: AsyncIterator[bytes]) -> None:
        """Store a body under a valid key: all of it, or nothing where the body breaks off.

        Raises:
            VolumeFullError, KeyTakenError, OSError: see there.
        """
        incoming = self._incoming / uuid.uuid4().hex
        try:
            await self._receive(incoming, body)
            await asyncio.to_thread(self._move, incoming, self._objects / key)
        except OSError as error:
            if error.errno in _FULL:
                raise VolumeFullError(f"the volume of the store is full ({self.free_bytes()} bytes are free)") from error
            if isinstance(error, (IsADirectoryError, NotADirectoryError, FileExistsError)):
                raise KeyTakenError(f"{key!r} is a prefix of other keys, or goes through one") from error
            raise
        finally:
            with suppress(FileNotFoundError):
                incoming.unlink()

    async def _receive(self, path: Path, body: AsyncIterator[bytes]) -> None:
        with await asyncio.to_thread(path.open, "wb") as file:
            buffer = bytearray()
            async for chunk in body:
                buffer += chunk
                if len(buffer) >= _CHUNK_BYTES:
                    await asyncio.to_thread(file.write, bytes(buffer))
                    buffer.clear()
            await asyncio.to_thread(_finish, file, bytes(buffer))

    def _move(self, source: Path, target: Path) -> None:
        while True:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                source.replace(target)
            except FileNotFoundError:
                # A deletion at this moment took the folder away because it was empty.
                if not source.exists():
                    raise
                continue
            break
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _finish(file: BufferedWriter, rest: bytes) -> None:
    file.write(rest)
    file.flush()
    os.fsync(file.fileno())
