"""What counts against the quota of a namespace, and what it refuses."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ocelli_store.folder import KeyTakenError, ObjectFolder
from ocelli_store.usage import SEGMENT_BYTES, QuotaExceededError

KEY = "tenants/team-a/x"
KEY_BYTES = 2 * SEGMENT_BYTES
QUOTA_BYTES = 1_000_000


@pytest.fixture
def folder(tmp_path: Path) -> ObjectFolder:
    return ObjectFolder(tmp_path, QUOTA_BYTES)


def run(*work: Coroutine[Any, Any, None]) -> list[BaseException | None]:
    """Run all of them concurrently; returns what each raised."""

    async def together() -> list[BaseException | None]:
        return await asyncio.gather(*work, return_exceptions=True)

    return asyncio.run(together())


async def pieces(*sizes_bytes: int) -> AsyncIterator[bytes]:
    for size_bytes in sizes_bytes:
        # Others run in between, as while a network request waits.
        await asyncio.sleep(0)
        yield b"x" * size_bytes


async def cut_off(*sizes_bytes: int) -> AsyncIterator[bytes]:
    async for piece in pieces(*sizes_bytes):
        yield piece
    raise ConnectionError("the client is gone")


def write(folder: ObjectFolder, *sizes_bytes: int, key: str = KEY, declared_bytes: int = 0) -> Coroutine[Any, Any, None]:
    return folder.write(key, pieces(*sizes_bytes), declared_bytes)


def test_an_object_counts_its_bytes_and_its_segments(folder: ObjectFolder) -> None:
    run(write(folder, 300_000))
    assert folder.usage.used_bytes("team-a") == KEY_BYTES + 300_000


def test_replaced_object_no_longer_counts(folder: ObjectFolder) -> None:
    run(write(folder, 300_000))
    run(write(folder, 100))
    assert folder.usage.used_bytes("team-a") == KEY_BYTES + 100


def test_object_and_its_replacement_both_count_during_the_write(folder: ObjectFolder) -> None:
    run(write(folder, 600_000))
    assert isinstance(run(write(folder, 600_000))[0], QuotaExceededError)
    assert folder.usage.used_bytes("team-a") == KEY_BYTES + 600_000


def test_concurrent_writes_of_one_key_count_once(folder: ObjectFolder, tmp_path: Path) -> None:
    run(*(write(folder, size_bytes, 100) for size_bytes in range(1000, 1020)))
    assert folder.usage.used_bytes("team-a") == KEY_BYTES + os.path.getsize(tmp_path / "objects" / KEY)


def test_concurrent_writes_and_deletions_of_one_key_count_the_stored_object(folder: ObjectFolder) -> None:
    for _ in range(10):
        raised = run(*(work for size_bytes in range(1000, 1010) for work in (write(folder, size_bytes), folder.delete(KEY))))
        assert set(raised) == {None}
    run(folder.delete(KEY))
    assert folder.usage.used_bytes("team-a") == 0


def test_deleted_object_no_longer_counts(folder: ObjectFolder) -> None:
    run(write(folder, 300_000))
    run(folder.delete(KEY))
    assert folder.usage.used_bytes("team-a") == 0


def test_deleting_a_missing_object_changes_nothing(folder: ObjectFolder) -> None:
    run(write(folder, 300_000, key=f"{KEY}/y"))
    run(folder.delete(KEY), folder.delete(f"{KEY}/z"), folder.delete(f"{KEY}/y/z"))
    assert folder.usage.used_bytes("team-a") == KEY_BYTES + SEGMENT_BYTES + 300_000


def test_deletion_removes_empty_folders(folder: ObjectFolder, tmp_path: Path) -> None:
    run(write(folder, 1, key="tenants/team-a/a/b/x"), write(folder, 1, key="tenants/team-a/c"))
    run(folder.delete("tenants/team-a/a/b/x"))
    assert [path.name for path in (tmp_path / "objects" / "tenants" / "team-a").iterdir()] == ["c"]


def test_interrupted_upload_no_longer_counts(folder: ObjectFolder) -> None:
    run(folder.write(KEY, cut_off(200_000, 200_000), 900_000))
    assert folder.usage.used_bytes("team-a") == 0


def test_write_that_cannot_be_moved_into_place_no_longer_counts(folder: ObjectFolder) -> None:
    run(write(folder, 100))
    assert isinstance(run(write(folder, 100, key=f"{KEY}/y"))[0], KeyTakenError)
    assert folder.usage.used_bytes("team-a") == KEY_BYTES + 100


def test_declared_size_above_the_quota_is_refused_before_the_body_is_read(folder: ObjectFolder) -> None:
    body = pieces(QUOTA_BYTES)
    assert isinstance(run(folder.write(KEY, body, QUOTA_BYTES))[0], QuotaExceededError)
    assert asyncio.run(anext(body)), "the body has not been read"  # type: ignore[arg-type]


def test_undeclared_size_is_refused_when_it_exceeds_the_quota(folder: ObjectFolder, tmp_path: Path) -> None:
    taken: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        while True:
            taken.append(100_000)
            yield b"x" * 100_000

    assert isinstance(run(folder.write(KEY, endless()))[0], QuotaExceededError)
    assert sum(taken) == QUOTA_BYTES
    assert list((tmp_path / "incoming").iterdir()) == []


def test_uploads_in_flight_count_together(folder: ObjectFolder) -> None:
    raised = run(*(write(folder, 300_000, 100_000, key=f"tenants/team-a/{number}") for number in range(3)))
    assert any(isinstance(error, QuotaExceededError) for error in raised)


def test_declared_size_is_reserved_from_the_start(folder: ObjectFolder) -> None:
    declared = write(folder, 1, 799_999, key="tenants/team-a/declared", declared_bytes=800_000)
    other = write(folder, 1, 299_999, key="tenants/team-a/other")
    assert [type(error) for error in run(declared, other)] == [type(None), QuotaExceededError]


def test_many_empty_objects_in_their_own_folders_are_limited(folder: ObjectFolder) -> None:
    raised = run(*(write(folder, key=f"tenants/team-a/{number}/a/b/c/d/x") for number in range(20)))
    assert sum(error is None for error in raised) == QUOTA_BYTES // (7 * SEGMENT_BYTES)


def test_another_namespace_has_its_own_quota(folder: ObjectFolder) -> None:
    run(write(folder, 900_000))
    assert run(write(folder, 900_000, key="tenants/team-b/x")) == [None]


def test_objects_outside_of_tenants_are_not_limited(folder: ObjectFolder) -> None:
    assert run(write(folder, 2 * QUOTA_BYTES, key="backbones/ab/model.onnx")) == [None]


def test_without_a_quota_nothing_is_limited(tmp_path: Path) -> None:
    assert run(write(ObjectFolder(tmp_path), 2 * QUOTA_BYTES)) == [None]


def test_restart_counts_stored_objects(folder: ObjectFolder, tmp_path: Path) -> None:
    run(
        write(folder, 300_000),
        write(folder, 10, key="tenants/team-a/uploads/dogs/ab.zip"),
        write(folder, 5, key="tenants/team-b/x"),
    )
    run(write(folder, 5, key="backbones/ab/model.onnx"))
    again = ObjectFolder(tmp_path, QUOTA_BYTES)
    assert [again.usage.used_bytes(name) for name in ("team-a", "team-b")] == [
        folder.usage.used_bytes(name) for name in ("team-a", "team-b")
    ]


def test_objects_above_a_lowered_quota_can_be_deleted(folder: ObjectFolder, tmp_path: Path) -> None:
    run(write(folder, 300_000))
    again = ObjectFolder(tmp_path, 100_000)
    assert isinstance(run(write(again, 1, key="tenants/team-a/y"))[0], QuotaExceededError)
    run(again.delete(KEY))
    assert run(write(again, 1, key="tenants/team-a/y")) == [None]


def test_a_refusal_names_namespace_quota_use_and_remedy(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path, 5 * 1024 * 1024)
    run(write(folder, 4 * 1024 * 1024))
    (error,) = run(write(folder, key="tenants/team-a/y", declared_bytes=2 * 1024 * 1024))
    assert str(error) == (
        'namespace "team-a" exceeds its quota in the store: 4.0 MiB of 5.0 MiB are used, and 2.0 MiB more are needed; '
        "delete classifiers that are no longer needed, or ask the administrator of this installation for a larger quota"
    )
