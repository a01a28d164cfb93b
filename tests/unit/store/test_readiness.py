"""The store is ready if its volume works."""

import asyncio
import errno
import os
from pathlib import Path

import pytest

from ocelli_store.folder import ObjectFolder
from ocelli_store.readiness import REMEMBERED_SECONDS, Readiness


class Volume:
    """Stands in for a volume: raises its error, and counts its checks."""

    def __init__(self) -> None:
        self.count = 0
        self.error: OSError | None = None

    def check(self) -> None:
        self.count += 1
        if self.error is not None:
            raise self.error


def fail_with(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def fail_writes(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """A full volume: files can be created, and nothing can be written to them."""

    def write_bytes(self: Path, data: bytes) -> int:
        self.touch()
        raise fail_with(number)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_volume_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    folder = ObjectFolder(tmp_path)
    fail_writes(monkeypatch, number)
    folder.check_volume()


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_volume_that_cannot_be_written_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    folder = ObjectFolder(tmp_path)
    fail_writes(monkeypatch, number)
    with pytest.raises(OSError, match=os.strerror(number)):
        folder.check_volume()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_check_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    folder = ObjectFolder(tmp_path)
    fail_writes(monkeypatch, number)
    for _ in range(3):
        try:
            folder.check_volume()
        except OSError:
            continue
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_full_volume_does_not_keep_a_store_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ObjectFolder(tmp_path)
    (tmp_path / "incoming" / "half").write_bytes(b"abc")

    def mkdir(*_: object, **__: object) -> None:
        raise fail_with(errno.ENOSPC)

    monkeypatch.setattr(os, "mkdir", mkdir)
    ObjectFolder(tmp_path)
    assert list((tmp_path / "incoming").iterdir()) == []


def test_concurrent_probes_cause_one_check() -> None:
    volume = Volume()
    readiness = Readiness(volume.check, clock=lambda: 0.0)

    async def ask() -> None:
        assert set(await asyncio.gather(*(readiness.problem() for _ in range(20)))) == {None}

    asyncio.run(ask())
    assert volume.count == 1


def test_a_volume_that_fails_is_noticed_soon() -> None:
    volume = Volume()
    now = [0.0]
    readiness = Readiness(volume.check, clock=lambda: now[0])

    async def ask() -> list[str | None]:
        before = await readiness.problem()
        volume.error = fail_with(errno.EIO)
        now[0] += REMEMBERED_SECONDS
        failing = await readiness.problem()
        volume.error = None
        now[0] += REMEMBERED_SECONDS
        return [before, failing, await readiness.problem()]

    assert asyncio.run(ask()) == [None, os.strerror(errno.EIO), None]
