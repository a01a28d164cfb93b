"""An object store in a folder, without the libraries of Ocelli's own stores."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FolderStore:
    """What loading an artifact and storing checkpoints need of `ObjectStore`, see there."""

    folder: Path

    async def get(self, key: str, *, limit_bytes: int) -> bytes:
        # Imported on demand: Ocelli's modules may need stand-ins first.
        from ocelli_storage.object_store import ObjectNotFoundError, ObjectTooLargeError

        try:
            data = (self.folder / key).read_bytes()
        except FileNotFoundError as error:
            raise ObjectNotFoundError(key) from error
        if len(data) > limit_bytes:
            raise ObjectTooLargeError(key, len(data), limit_bytes)
        return data

    async def open_read(self, key: str, chunk_bytes: int = 1 << 20) -> AsyncIterator[bytes]:
        with (self.folder / key).open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, chunk_bytes):
                yield chunk

    async def put(self, key: str, data: bytes | Path) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        # The folder must never hold a part of an object: its writer is killed.
        part = path.with_name(f".{path.name}.part")
        if isinstance(data, Path):
            await asyncio.to_thread(shutil.copyfile, data, part)
        else:
            part.write_bytes(data)
        part.replace(path)

    async def delete(self, key: str) -> None:
        (self.folder / key).unlink(missing_ok=True)
