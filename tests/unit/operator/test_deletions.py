"""What becomes of the bytes of deleted Classifiers when operators end, or the store is away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from ocelli_cluster.client import UnreachableError

from ocelli_operator import deletions
from ocelli_operator.deletions import Deletions
from ocelli_operator.store_owner import Ownership
from ocelli_operator.sweep import OtherInstallationError, ResourceGoneError, StoredClassifier
from ocelli_storage.layout import deletions_key
from ocelli_storage.object_store import ObjectStore, StoreUnavailableError

pytestmark = pytest.mark.anyio

DOGS, CATS = ("team-a", "dogs_1"), ("team-a", "cats_1")
OTHERS = Ownership(installation="uid-1", owner="uid-2")
NOTE = b'{"pending": [["team-a", "dogs_1"]]}'


class Sweep:
    """Deletes nothing, and remembers what it should have deleted."""

    def __init__(self, trouble: Exception | None = None, resource: Exception | None = None) -> None:
        self.asked: list[StoredClassifier] = []
        self.checks = 0
        self.trouble = trouble
        self.told: list[StoredClassifier] = []
        """Of which it was told that their bytes are kept."""
        self.resource = resource
        """What comes of the question whether the resource is there; None: it is."""

    async def check_resource(self) -> None:
        self.checks += 1
        if self.resource is not None:
            raise self.resource

    async def delete_classifier(self, gone: StoredClassifier) -> int:
        self.asked.append(gone)
        if self.trouble is not None:
            raise self.trouble
        return 1

    async def tell_kept(self, gone: StoredClassifier, ownership: Ownership) -> None:
        assert ownership == OTHERS
        self.told.append(gone)


@contextlib.asynccontextmanager
async def leading(store: ObjectStore, sweep: Sweep) -> AsyncIterator[Deletions]:
    """An operator that leads while the block runs."""

    async def identify() -> str:
        return "uid-1"

    current = Deletions(store, identify)
    running = asyncio.create_task(current.run(sweep, lambda _count: None, sweep.tell_kept))  # type: ignore[arg-type]
    try:
        yield current
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def wait_for(found: Callable[[], Any], timeout_seconds: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not found():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


def noted(store: ObjectStore) -> str:
    path = Path(store.url.removeprefix("file://")) / deletions_key("uid-1")
    return path.read_text() if path.exists() else ""


async def test_a_successor_deletes_what_its_predecessor_did_not(store: ObjectStore) -> None:
    async with leading(store, Sweep(StoreUnavailableError("object store: refused"))) as first:
        first.add(DOGS)
        first.add(CATS)
        await wait_for(lambda: "dogs_1" in noted(store) and "cats_1" in noted(store))
    second = Sweep()
    async with leading(store, second):
        await wait_for(lambda: len(second.asked) == 2)
    assert set(second.asked) == {DOGS, CATS}


async def test_a_successor_deletes_again_what_a_trainer_may_have_written_since(store: ObjectStore) -> None:
    first, second = Sweep(), Sweep()
    async with leading(store, first) as current:
        current.add(DOGS)
        await wait_for(lambda: first.asked and "dogs_1" in noted(store))
    async with leading(store, second):
        await wait_for(lambda: second.asked == [DOGS])


async def test_what_was_deleted_twice_is_noted_no_more(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletions, "AGAIN_SECONDS", 0.0)
    await store.put(deletions_key("uid-1"), NOTE)
    sweep = Sweep()
    async with leading(store, sweep):
        await wait_for(lambda: sweep.asked == [DOGS, DOGS] and noted(store) == '{"pending": []}')


async def test_classifiers_that_went_with_their_resource_are_noted_no_more(store: ObjectStore) -> None:
    await store.put(deletions_key("uid-1"), NOTE)
    async with leading(store, Sweep(resource=ResourceGoneError("it is being deleted"))):
        await wait_for(lambda: noted(store) == '{"pending": []}')


async def test_a_successor_deletes_nothing_that_may_have_gone_with_its_resource(store: ObjectStore) -> None:
    first, second = Sweep(resource=UnreachableError("the API server is not reachable")), Sweep()
    async with leading(store, first) as current:
        current.add(DOGS)
        await wait_for(lambda: first.checks == 1)
        first.resource = None
        current.add(CATS)
        await wait_for(lambda: "cats_1" in noted(store))
    assert "dogs_1" not in noted(store)
    async with leading(store, second):
        await wait_for(lambda: second.asked == [CATS])


async def test_what_could_not_be_judged_before_the_resource_went_is_not_tried_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletions, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(deletions, "AGAIN_SECONDS", 0.3)
    sweep = Sweep(resource=UnreachableError("the API server is not reachable"))
    async with leading(store, sweep) as current:
        current.add(DOGS)
        await wait_for(lambda: sweep.checks == 1)
        current.give_up()
        sweep.resource = None
        current.add(CATS)
        await wait_for(lambda: sweep.asked == [CATS, CATS])


async def test_a_note_that_cannot_be_read_keeps_nothing_from_being_deleted(store: ObjectStore) -> None:
    await store.put(deletions_key("uid-1"), b"[")
    sweep = Sweep()
    async with leading(store, sweep) as current:
        current.add(DOGS)
        await wait_for(lambda: sweep.asked == [DOGS])


class TestStoreOfAnotherInstallation:
    @pytest.fixture(autouse=True)
    def short_delays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deletions, "OTHER_STORE_RETRY_SECONDS", 0.05)
        monkeypatch.setattr(deletions, "AGAIN_SECONDS", 0.0)

    async def test_what_is_kept_there_is_told_once(self, store: ObjectStore) -> None:
        sweep = Sweep(OtherInstallationError(OTHERS))
        async with leading(store, sweep) as current:
            current.add(DOGS)
            await wait_for(lambda: len(sweep.asked) == 3)
        assert sweep.told == [DOGS]

    async def test_what_a_predecessor_told_is_not_told_again(self, store: ObjectStore) -> None:
        await store.put(deletions_key("uid-1"), NOTE)
        sweep = Sweep(OtherInstallationError(OTHERS))
        async with leading(store, sweep):
            await wait_for(lambda: len(sweep.asked) == 2)
        assert sweep.told == []

    async def test_a_successor_deletes_what_was_kept_when_the_store_is_this_installations(self, store: ObjectStore) -> None:
        first, second = Sweep(OtherInstallationError(OTHERS)), Sweep()
        async with leading(store, first) as current:
            current.add(DOGS)
            await wait_for(lambda: len(first.asked) == 2 and "dogs_1" in noted(store))
        async with leading(store, second):
            await wait_for(lambda: second.asked == [DOGS, DOGS] and noted(store) == '{"pending": []}')

    async def test_what_was_kept_goes_without_a_restart_when_the_store_is_this_installations(self, store: ObjectStore) -> None:
        sweep = Sweep(OtherInstallationError(OTHERS))
        async with leading(store, sweep) as current:
            current.add(DOGS)
            await wait_for(lambda: sweep.asked)
            sweep.trouble = None
            await wait_for(lambda: noted(store) == '{"pending": []}')
