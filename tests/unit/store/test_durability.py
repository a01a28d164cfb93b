"""A confirmed write survives a power cut: every changed folder is synced before the answer."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ocelli_store.folder import ObjectFolder, VolumeFullError

KEY = "tenants/team-a/artifacts/dogs_1/0123456789/artifact.json"


class Disk:
    """Records the content of each folder at its last sync, which is what remains after a power cut."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.synced: dict[int, set[str]] = {}
        fsync = os.fsync

        def note(descriptor: int) -> None:
            fsync(descriptor)
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                self.synced[status.st_ino] = set(os.listdir(descriptor))

        monkeypatch.setattr(os, "fsync", note)

    def holds(self, path: Path, root: Path) -> bool:
        """Whether a path below an existing root is found after a power cut."""
        while path != root:
            if path.name not in self.synced.get(path.parent.stat().st_ino, ()):
                return False
            path = path.parent
        return True


def write(folder: ObjectFolder, key: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"abc"

    asyncio.run(folder.write(key, body()))


def test_an_object_in_new_folders_is_found_after_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    write(ObjectFolder(tmp_path), KEY)
    assert disk.holds(tmp_path / "objects" / KEY, tmp_path)


@pytest.mark.parametrize("other", ["", "tenants/team-a/artifacts/dogs_1/0123456789/x", "tenants/team-b/x"])
def test_an_object_that_was_deleted_is_gone_after_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    disk = Disk(monkeypatch)
    folder = ObjectFolder(tmp_path)
    for key in filter(None, (KEY, other)):
        write(folder, key)
    path = tmp_path / "objects" / KEY
    asyncio.run(folder.delete(KEY))
    # The first remaining folder: it no longer contains the path to the object.
    while not path.parent.exists():
        path = path.parent
    assert path.name not in disk.synced[path.parent.stat().st_ino]


def test_repeated_deletion_also_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ObjectFolder(tmp_path)
    write(folder, KEY)
    # The first one was interrupted between the deletion and the sync.
    (tmp_path / "objects" / KEY).unlink()
    disk = Disk(monkeypatch)
    asyncio.run(folder.delete(KEY))
    assert disk.synced[(tmp_path / "objects" / KEY).parent.stat().st_ino] == set()


def test_write_without_room_in_its_folder_leaves_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ObjectFolder(tmp_path)
    write(folder, "tenants/team-a/x")

    def replace(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(VolumeFullError):
        write(folder, KEY)
    assert [path.name for path in (tmp_path / "objects" / "tenants" / "team-a").iterdir()] == ["x"]
