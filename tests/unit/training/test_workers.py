"""The address of the first worker in the store, and messages about workers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ocelli_storage.object_store import ObjectStore
from ocelli_storage.store_url import open_store
from ocelli_training.workers import WorkerAddress, WorkersMissingError, find_address, publish_address, withdraw_address

KEY = "attempt/first-worker.json"
ADDRESS = WorkerAddress(host="10.0.0.7", port=4711, session="abcdef")


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path.as_uri())


def test_a_published_address_is_found(store: ObjectStore) -> None:
    async def exchange() -> WorkerAddress | None:
        await publish_address(store, KEY, ADDRESS)
        return await find_address(store, KEY)

    assert asyncio.run(exchange()) == ADDRESS


def test_before_the_first_worker_has_started_there_is_no_address(store: ObjectStore) -> None:
    assert asyncio.run(find_address(store, KEY)) is None


def test_a_withdrawn_address_is_not_found(store: ObjectStore) -> None:
    async def exchange() -> WorkerAddress | None:
        await publish_address(store, KEY, ADDRESS)
        await withdraw_address(store, KEY)
        return await find_address(store, KEY)

    assert asyncio.run(exchange()) is None


@pytest.mark.parametrize("content", [b"", b"[]", b'{"host": "10.0.0.7"}', b'{"host": "a", "port": "x", "session": "y"}'])
def test_a_damaged_address_counts_as_none(store: ObjectStore, content: bytes) -> None:
    async def exchange() -> WorkerAddress | None:
        await store.put(KEY, content)
        return await find_address(store, KEY)

    assert asyncio.run(exchange()) is None


def test_the_message_names_all_missing_workers() -> None:
    message = str(WorkersMissingError(missing=[1, 3], workers=4, waited_seconds=600))
    assert message.startswith("workers 1, 3 (of 0 to 3) did not start within 600 s; lower spec.training.workers")
