"""What is remembered of stored artifacts."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ocelli_operator.training_store import KnownArtifacts, TrainingStore
from ocelli_storage.layout import ARTIFACT_METADATA, ClassifierLocation
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
