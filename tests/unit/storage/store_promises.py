"""The promises of every kind of object store. A test class for each kind inherits them and has a fixture `store`."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectTooLargeError, StoreUnavailableError

T = TypeVar("T")

LARGE = bytes(range(256)) * 4 * 4096 * 3
"""Twelve megabytes: more than one part, more than one buffer."""
LIMIT_BYTES = 2 * len(LARGE)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def read_all(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


class StorePromises:
    """Tests of a `store` that is empty."""

    def test_a_stored_object_can_be_read(self, store: ObjectStore) -> None:
        run(store.put("tenants/a/x.bin", b"abc"))
        assert run(store.get("tenants/a/x.bin", limit_bytes=LIMIT_BYTES)) == b"abc"

    def test_a_key_can_contain_the_characters_of_classifier_ids(self, store: ObjectStore) -> None:
        key = "tenants/a/uploads/hündchen 100%+1_17/ab.zip"
        run(store.put(key, b"abc"))
        assert [item.key for item in run(store.list_objects("tenants/a/uploads"))] == [key]

    def test_a_put_replaces_an_existing_object(self, store: ObjectStore) -> None:
        run(store.put("tenants/a/x.bin", b"a longer text"))
        run(store.put("tenants/a/x.bin", b"abc"))
        assert run(store.get("tenants/a/x.bin", limit_bytes=LIMIT_BYTES)) == b"abc"

    def test_an_empty_object_can_be_stored(self, store: ObjectStore) -> None:
        run(store.put("tenants/a/x.bin", b""))
        assert run(store.get("tenants/a/x.bin", limit_bytes=LIMIT_BYTES)) == b""

    def test_a_file_is_streamed_both_ways(self, store: ObjectStore, tmp_path: Path) -> None:
        (tmp_path / "large").write_bytes(LARGE)
        run(store.put("tenants/a/large", tmp_path / "large"))
        assert run(read_all(store.open_read("tenants/a/large"))) == LARGE

    def test_an_object_of_exactly_the_readers_limit_can_be_read(self, store: ObjectStore) -> None:
        run(store.put("tenants/a/x.bin", LARGE))
        assert run(store.get("tenants/a/x.bin", limit_bytes=len(LARGE))) == LARGE

    def test_an_object_above_the_readers_limit_is_refused_with_key_size_and_limit(self, store: ObjectStore) -> None:
        run(store.put("tenants/a/x.bin", LARGE))
        with pytest.raises(
            ObjectTooLargeError, match=r"'tenants/a/x\.bin' has 12,582,912 bytes; the limit is 65,536"
        ) as caught:
            run(store.get("tenants/a/x.bin", limit_bytes=65_536))
        assert (caught.value.key, caught.value.size_bytes, caught.value.limit_bytes) == ("tenants/a/x.bin", len(LARGE), 65_536)

    def test_a_part_of_an_object_can_be_read(self, store: ObjectStore) -> None:
        run(store.put("tenants/a/x.bin", b"0123456789"))
        assert run(store.get_range("tenants/a/x.bin", offset=3, length=4)) == b"3456"
        assert run(store.get_range("tenants/a/x.bin", offset=0, length=10)) == b"0123456789"
        assert run(store.get_range("tenants/a/x.bin", offset=5, length=0)) == b""

    @pytest.mark.parametrize("offset", [8, 10, 50])
    def test_a_part_that_an_object_does_not_have_is_an_error(self, store: ObjectStore, offset: int) -> None:
        run(store.put("tenants/a/x.bin", b"0123456789"))
        with pytest.raises(StoreUnavailableError, match=r"tenants/a/x\.bin"):
            run(store.get_range("tenants/a/x.bin", offset=offset, length=4))

    @pytest.mark.parametrize("name", ["missing", "."])
    def test_an_unreadable_local_file_is_not_an_error_of_the_store(self, store: ObjectStore, tmp_path: Path, name: str) -> None:
        with pytest.raises(OSError, match=r"No such file|s a directory"):
            run(store.put("tenants/a/x.bin", tmp_path / name))
        assert not run(store.exists("tenants/a/x.bin"))

    @pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")
    def test_an_abandoned_read_leaves_no_connection_open(self, store: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
        async def read_a_part() -> None:
            await store.put("tenants/a/large", LARGE)
            chunks = store.open_read("tenants/a/large")
            await anext(chunks)
            await chunks.aclose()  # type: ignore[attr-defined]
            await store.exists("tenants/a/missing")

        # Collect the garbage of earlier tests first.
        with warnings.catch_warnings(action="ignore"):
            gc.collect()
        caplog.clear()
        run(read_a_part())
        gc.collect()
        assert [record.getMessage() for record in caplog.records] == []

    def test_the_size_of_an_object_is_known(self, store: ObjectStore) -> None:
        run(store.put("tenants/a/x.bin", b"abc"))
        assert run(store.size_of("tenants/a/x.bin")) == 3

    @pytest.mark.parametrize(
        "read",
        [
            pytest.param(lambda store, key: store.get(key, limit_bytes=LIMIT_BYTES), id="get"),
            pytest.param(lambda store, key: store.get_range(key, offset=0, length=4), id="get_range"),
            pytest.param(lambda store, key: store.size_of(key), id="size_of"),
            pytest.param(lambda store, key: read_all(store.open_read(key)), id="open_read"),
        ],
    )
    def test_reading_a_missing_object_names_the_key(
        self, store: ObjectStore, read: Callable[[ObjectStore, str], Coroutine[Any, Any, object]]
    ) -> None:
        with pytest.raises(ObjectNotFoundError, match="tenants/a/missing"):
            run(read(store, "tenants/a/missing"))

    def test_a_stored_object_exists(self, store: ObjectStore) -> None:
        run(store.put("tenants/a/x.bin", b"abc"))
        assert run(store.exists("tenants/a/x.bin"))

    def test_a_missing_object_does_not_exist(self, store: ObjectStore) -> None:
        assert not run(store.exists("tenants/a/x.bin"))

    def test_a_listing_matches_whole_segments_of_its_prefix_only(self, store: ObjectStore) -> None:
        for key in ("tenants/a/x", "tenants/a/b/y", "tenants/ab/z"):
            run(store.put(key, b"abc"))
        assert {(item.key, item.size_bytes) for item in run(store.list_objects("tenants/a"))} == {
            ("tenants/a/x", 3),
            ("tenants/a/b/y", 3),
        }

    def test_a_listing_without_objects_is_empty(self, store: ObjectStore) -> None:
        assert run(store.list_objects("tenants/a")) == []

    def test_folders_are_the_names_one_level_below(self, store: ObjectStore) -> None:
        for key in ("backbones/a/x", "backbones/b/y/z", "backbones/c"):
            run(store.put(key, b"abc"))
        assert sorted(run(store.list_folders("backbones"))) == ["a", "b"]

    def test_an_unused_prefix_has_no_folders(self, store: ObjectStore) -> None:
        assert run(store.list_folders("backbones")) == []

    def test_a_deleted_object_is_gone(self, store: ObjectStore) -> None:
        run(store.put("tenants/a/x", b"abc"))
        run(store.delete("tenants/a/x"))
        assert not run(store.exists("tenants/a/x"))

    def test_deleting_a_missing_object_is_not_an_error(self, store: ObjectStore) -> None:
        run(store.delete("tenants/a/x"))

    def test_deleting_a_prefix_returns_the_number_of_objects(self, store: ObjectStore) -> None:
        for key in ("tenants/a/x", "tenants/a/b/y", "tenants/b/z"):
            run(store.put(key, b"abc"))
        assert run(store.delete_prefix("tenants/a")) == 2
        assert [item.key for item in run(store.list_objects("tenants"))] == ["tenants/b/z"]
