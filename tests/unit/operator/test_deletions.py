"""Stored data of deleted Classifiers is deleted although operators stop, or the store is not reachable."""

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
from ocelli_operator.metrics import OperatorMetrics
from ocelli_operator.references import StoredClassifier
from ocelli_operator.status import Occurrence
from ocelli_operator.store_owner import Ownership
from ocelli_operator.sweep import OtherInstallationError, ResourceGoneError
from ocelli_storage.layout import deletions_key
from ocelli_storage.object_store import ObjectStore, StoreUnavailableError

pytestmark = pytest.mark.anyio

DOGS, CATS = ("team-a", "dogs_1"), ("team-a", "cats_1")
OTHERS = Ownership(installation="uid-1", owner="uid-2")
NOTE = b'{"pending": [["team-a", "dogs_1"]]}'


class Sweep:
    """Deletes nothing, and records what it should delete."""

    def __init__(self, error: Exception | None = None, resource: Exception | None = None) -> None:
        self.asked: list[StoredClassifier] = []
        self.checks = 0
        self.error = error
        """Raised by each deletion."""
        self.resource = resource
        """Raised by each check of the CRD."""

    async def check_resource(self) -> None:
        self.checks += 1
        if self.resource is not None:
            raise self.resource

    async def delete_classifier(self, target: StoredClassifier) -> int:
        self.asked.append(target)
        if self.error is not None:
            raise self.error
        return 1


class Reports:
    """The Events about the installation."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    async def identify(self) -> str:
        return "uid-1"

    async def report(self, occurrence: Occurrence) -> None:
        assert occurrence.reason == "DeletionPostponed"
        self.notes.append(occurrence.note)


@contextlib.asynccontextmanager
async def leading(store: ObjectStore, sweep: Sweep, reports: Reports | None = None) -> AsyncIterator[Deletions]:
    """An operator that leads while the block runs."""
    installation: Any = reports or Reports()
    current = Deletions(store, installation, OperatorMetrics())
    running = asyncio.create_task(current.run(sweep))  # type: ignore[arg-type]
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


def saved(store: ObjectStore) -> str:
    path = Path(store.url.removeprefix("file://")) / deletions_key("uid-1")
    return path.read_text() if path.exists() else ""


async def test_a_new_leader_continues_with_pending_deletions(store: ObjectStore) -> None:
    async with leading(store, Sweep(StoreUnavailableError("object store: refused"))) as first:
        first.add(DOGS)
        first.add(CATS)
        await wait_for(lambda: "dogs_1" in saved(store) and "cats_1" in saved(store))
    second = Sweep()
    async with leading(store, second):
        await wait_for(lambda: len(second.asked) == 2)
    assert set(second.asked) == {DOGS, CATS}


async def test_a_new_leader_deletes_again_because_a_trainer_may_have_written_since(store: ObjectStore) -> None:
    first, second = Sweep(), Sweep()
    async with leading(store, first) as current:
        current.add(DOGS)
        await wait_for(lambda: first.asked and "dogs_1" in saved(store))
    async with leading(store, second):
        await wait_for(lambda: second.asked == [DOGS])


@pytest.mark.slow
async def test_data_that_was_deleted_twice_is_no_longer_pending(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletions, "AGAIN_SECONDS", 0.0)
    await store.put(deletions_key("uid-1"), NOTE)
    sweep = Sweep()
    async with leading(store, sweep):
        await wait_for(lambda: sweep.asked == [DOGS, DOGS] and saved(store) == '{"pending": []}')


@pytest.mark.slow
async def test_classifiers_that_disappeared_with_the_crd_are_no_longer_pending(store: ObjectStore) -> None:
    await store.put(deletions_key("uid-1"), NOTE)
    async with leading(store, Sweep(resource=ResourceGoneError("it is being deleted"))):
        await wait_for(lambda: saved(store) == '{"pending": []}')


@pytest.mark.slow
async def test_a_new_leader_deletes_nothing_that_may_have_disappeared_with_the_crd(store: ObjectStore) -> None:
    first, second = Sweep(resource=UnreachableError("the API server is not reachable")), Sweep()
    async with leading(store, first) as current:
        current.add(DOGS)
        await wait_for(lambda: first.checks == 1)
        first.resource = None
        current.add(CATS)
        await wait_for(lambda: "cats_1" in saved(store))
    assert "dogs_1" not in saved(store)
    async with leading(store, second):
        await wait_for(lambda: second.asked == [CATS])


async def test_a_deletion_that_could_not_be_checked_before_the_crd_was_deleted_is_not_retried(
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


async def test_an_unreadable_document_does_not_block_deletions(store: ObjectStore) -> None:
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

    async def test_data_that_is_kept_is_reported_once(self, store: ObjectStore) -> None:
        sweep, reports = Sweep(OtherInstallationError(OTHERS)), Reports()
        async with leading(store, sweep, reports) as current:
            current.add(DOGS)
            await wait_for(lambda: len(sweep.asked) == 3)
        (note,) = reports.notes
        assert "the deleted Classifier with the id dogs_1 is kept" in note
        assert "belongs to the installation uid-2, not to this one, uid-1" in note

    async def test_a_new_leader_does_not_report_it_again(self, store: ObjectStore) -> None:
        await store.put(deletions_key("uid-1"), NOTE)
        sweep, reports = Sweep(OtherInstallationError(OTHERS)), Reports()
        async with leading(store, sweep, reports):
            await wait_for(lambda: len(sweep.asked) == 2)
        assert reports.notes == []

    @pytest.mark.slow
    async def test_a_new_leader_deletes_kept_data_when_the_store_is_adopted(self, store: ObjectStore) -> None:
        first, second = Sweep(OtherInstallationError(OTHERS)), Sweep()
        async with leading(store, first) as current:
            current.add(DOGS)
            await wait_for(lambda: len(first.asked) == 2 and "dogs_1" in saved(store))
        async with leading(store, second):
            await wait_for(lambda: second.asked == [DOGS, DOGS] and saved(store) == '{"pending": []}')

    @pytest.mark.slow
    async def test_kept_data_is_deleted_without_a_restart_when_the_store_is_adopted(self, store: ObjectStore) -> None:
        sweep = Sweep(OtherInstallationError(OTHERS))
        async with leading(store, sweep) as current:
            current.add(DOGS)
            await wait_for(lambda: sweep.asked)
            sweep.error = None
            await wait_for(lambda: saved(store) == '{"pending": []}')
