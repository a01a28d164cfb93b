"""What is remembered of stored artifacts, and what documents that a tenant's Pods wrote may do to the operator: nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from ocelli_operator.training_store import KnownArtifacts, TrainingStore
from ocelli_storage.documents import LIMITS_BYTES
from ocelli_storage.layout import ARTIFACT_METADATA, OUTCOME, PROGRESS, ClassifierLocation
from ocelli_storage.object_store import ObjectStore

LOCATION = ClassifierLocation(namespace="team-a", classifier_id="dogs_19")
REVISION = "0123456789"
KEY = LOCATION.artifact_key(REVISION, ARTIFACT_METADATA)


def test_an_artifact_that_was_swept_is_known_no_more(tmp_path: Path) -> None:
    async def scenario() -> list[bool]:
        store = ObjectStore.from_url(tmp_path.as_uri())
        known = KnownArtifacts(TrainingStore(store))
        await store.put(KEY, b'{"metrics": {"accuracy": 0.5}}')
        before = await known.find(LOCATION, REVISION, 1, in_use=False)
        await store.delete(KEY)
        after = await known.find(LOCATION, REVISION, 1, in_use=False)
        return [before is not None, after is not None]

    assert asyncio.run(scenario()) == [True, False]


def test_the_artifact_that_is_served_is_read_once(tmp_path: Path) -> None:
    async def scenario() -> bool:
        store = ObjectStore.from_url(tmp_path.as_uri())
        known = KnownArtifacts(TrainingStore(store))
        await store.put(KEY, b'{"metrics": {"accuracy": 0.5}}')
        first = await known.find(LOCATION, REVISION, 1, in_use=False)
        await store.put(KEY, b'{"metrics": {"accuracy": 0.9}}')
        return await known.find(LOCATION, REVISION, 1, in_use=True) is first

    assert asyncio.run(scenario())


def test_nothing_is_known_of_a_classifier_that_went_away(tmp_path: Path) -> None:
    async def scenario() -> bool:
        store = ObjectStore.from_url(tmp_path.as_uri())
        known = KnownArtifacts(TrainingStore(store))
        await store.put(KEY, b"{}")
        await known.find(LOCATION, REVISION, 1, in_use=True)
        await store.delete(KEY)
        known.forget("team-a", "dogs_19")
        return await known.find(LOCATION, REVISION, 1, in_use=True) is None

    assert asyncio.run(scenario())


PROGRESS_KEY = LOCATION.training_key(REVISION, 1, PROGRESS)
OUTCOME_KEY = LOCATION.training_key(REVISION, 1, OUTCOME)
HOSTILE = {
    "too large": lambda key: b" " * (LIMITS_BYTES[key.rsplit("/", 1)[-1]] + 1),
    "nested": lambda key: b"[" * 50_000,
    "no object": lambda key: b"7",
    "no text": lambda key: b"\xff",
    "other types": lambda key: b'{"metrics": [1], "backbone": 2, "stage": [], "percent": 1e999, "reason": {}}',
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("key", [PROGRESS_KEY, OUTCOME_KEY, KEY], ids=["progress", "outcome", "artifact"])
def test_what_is_no_document_counts_as_absent(tmp_path: Path, content: Callable[[str], bytes], key: str) -> None:
    async def scenario() -> list[object]:
        store = ObjectStore.from_url(tmp_path.as_uri())
        await store.put(key, content(key))
        read = TrainingStore(store)
        return [
            await read.load_progress(LOCATION, REVISION, 1),
            await read.load_outcome(LOCATION, REVISION, 1),
            await read.load_artifact(LOCATION, REVISION, 1),
        ]

    assert asyncio.run(scenario()) == [None, None, None]


def test_a_document_that_is_too_large_is_told_and_logged_once_until_another_one_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> list[str]:
        store = ObjectStore.from_url(tmp_path.as_uri())
        read = TrainingStore(store)
        await store.put(KEY, HOSTILE["too large"](KEY))
        for _ in range(3):
            await read.load_artifact(LOCATION, REVISION, 1)
        fault = read.find_fault(LOCATION, REVISION, 1)
        await store.put(KEY, b"{}")
        await read.load_artifact(LOCATION, REVISION, 1)
        return [fault, read.find_fault(LOCATION, REVISION, 1)]

    with caplog.at_level(logging.WARNING):
        told = asyncio.run(scenario())
    assert told == [f"object store: {KEY!r} has 4,194,305 bytes, and at most 4,194,304 are read", ""]
    assert len(caplog.records) == 1
