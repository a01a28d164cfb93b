"""The gateway's cache of trained revisions contains only what is shown, and is limited for any stored content."""

from __future__ import annotations

import asyncio
import gc
import json
from pathlib import Path
from typing import Any

import pytest

from ocelli_api.classifier import Source
from ocelli_gateway import definitions
from ocelli_gateway.definitions import DamagedArtifactError, Definitions
from ocelli_storage.documents import LIMITS_BYTES
from ocelli_storage.layout import ARTIFACT_METADATA, ClassifierLocation
from ocelli_storage.store_url import open_store

LOCATION = ClassifierLocation(namespace="team-a", classifier_id="birds_1")
REVISIONS = ("0" * 10, "1" * 10)


class CountingStore:
    """An object store that counts reads."""

    def __init__(self, folder: Path) -> None:
        self.objects = open_store(folder.as_uri())
        self.reads: list[str] = []

    async def get(self, key: str, *, limit_bytes: int) -> bytes:
        self.reads.append(key)
        return await self.objects.get(key, limit_bytes=limit_bytes)

    def put(self, key: str, document: dict[str, Any]) -> None:
        asyncio.run(self.objects.put(key, json.dumps(document).encode()))


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    """Two revisions of three classes each."""
    built = CountingStore(tmp_path)
    for revision in REVISIONS:
        classes = [{"name": name, "examples": [{"upload": "a" * 64, "round": 1}]} for name in ("heron", "owl", "stork")]
        built.put(LOCATION.definition_key(revision), {"classes": classes})
        built.put(LOCATION.artifact_key(revision, ARTIFACT_METADATA), {"classes": classes, "backbone": {"digest": "d"}})
    return built


def read_class_names(read: Definitions, *revisions: str) -> None:
    for revision in revisions:
        assert asyncio.run(read.class_names(LOCATION, revision)) == ("heron", "owl", "stork")


def test_class_names_are_read_once(store: CountingStore) -> None:
    read_class_names(Definitions(store), REVISIONS[0], REVISIONS[0])  # type: ignore[arg-type]
    assert len(store.reads) == 1


def test_the_total_number_of_cached_class_names_is_limited(store: CountingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "KEPT_NAMES_LIMIT", 5)
    read_class_names(Definitions(store), *REVISIONS, REVISIONS[0])  # type: ignore[arg-type]
    assert len(store.reads) == 3


def test_the_total_number_of_names_in_cached_summaries_is_limited(
    store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(definitions, "KEPT_NAMES_LIMIT", 5)
    read = Definitions(store)  # type: ignore[arg-type]
    for revision in (*REVISIONS, REVISIONS[0]):
        assert asyncio.run(read.read_summary(LOCATION, revision)) is not None
    assert len(store.reads) == 3


@pytest.mark.slow
def test_sources_are_not_cached(store: CountingStore) -> None:
    def count() -> int:
        gc.collect()
        return sum(isinstance(item, Source) for item in gc.get_objects())

    before = count()
    read = Definitions(store)  # type: ignore[arg-type]
    read_class_names(read, *REVISIONS)
    assert count() == before


@pytest.mark.parametrize("content", [b"[" * 50_000, b" " * (max(LIMITS_BYTES.values()) + 1), b"7"], ids=["deep", "large", "7"])
def test_metadata_that_is_not_a_document_is_a_damaged_artifact(store: CountingStore, content: bytes) -> None:
    for key in (LOCATION.definition_key(REVISIONS[0]), LOCATION.artifact_key(REVISIONS[0], ARTIFACT_METADATA)):
        asyncio.run(store.objects.put(key, content))
    read = Definitions(store)  # type: ignore[arg-type]
    with pytest.raises(DamagedArtifactError, match=r"definition\.json"):
        asyncio.run(read.read(LOCATION, REVISIONS[0]))
    with pytest.raises(DamagedArtifactError, match=r"artifact\.json"):
        asyncio.run(read.read_summary(LOCATION, REVISIONS[0]))
