"""What the sweep counts as orphans, and that the objects of one tenant do not block the sweep of others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ocelli_cluster.client import Listing, Page
from ocelli_operator.references import References
from ocelli_operator.sweep import FAILED_DELETES_LIMIT, StoreSweep, SweepSettings, find_orphans
from ocelli_storage.documents import LIMITS_BYTES
from ocelli_storage.layout import DEFINITION, ClassifierLocation
from ocelli_storage.object_store import StoredObject, StoreUnavailableError
from ocelli_storage.store_url import open_store
from tests.unit.operator.factories import make_spec

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
OLD = NOW - timedelta(hours=2)
LIVE = References(revisions=frozenset({"r1"}), trainings=frozenset({("r2", 3)}), uploads=frozenset({"u1"}))


def orphans(*keys: str, ages: dict[str, datetime] | None = None, references: References | None = LIVE) -> list[str]:
    objects = [StoredObject(key=f"tenants/{key}", size_bytes=1, modified_at=(ages or {}).get(key, OLD)) for key in keys]
    known = {} if references is None else {("ns", "dogs_1"): references}
    return [str(key).removeprefix("tenants/") for key in find_orphans(objects, known, NOW - timedelta(hours=1))]


def test_objects_that_a_classifier_refers_to_are_kept() -> None:
    kept = ["ns/artifacts/dogs_1/r1/artifact.json", "ns/trainings/dogs_1/r2/3/progress.json", "ns/uploads/dogs_1/u1.zip"]
    assert orphans(*kept) == []


def test_objects_that_no_classifier_refers_to_are_orphans() -> None:
    lost = ["ns/artifacts/dogs_1/r9/artifact.json", "ns/trainings/dogs_1/r2/2/outcome.json", "ns/uploads/dogs_1/u9.zip"]
    assert orphans(*lost) == lost


def test_curves_are_kept_and_deleted_with_their_revision() -> None:
    kept, lost = (f"ns/artifacts/dogs_1/{revision}/tensorboard/network-1/events.out.tfevents" for revision in ("r1", "r9"))
    assert orphans(kept, lost) == [lost]


def test_a_failed_attempt_keeps_its_documents_and_not_what_only_a_training_needs() -> None:
    failed = References(revisions=frozenset(), trainings=frozenset(), uploads=None, failed=frozenset({("r2", 3)}))
    kept = [
        "ns/trainings/dogs_1/r2/3/check/report.html",
        "ns/trainings/dogs_1/r2/3/image-data/thumbnails.safetensors",
        "ns/trainings/dogs_1/r2/3/outcome.json",
    ]
    lost = [
        "ns/trainings/dogs_1/r2/3/image-data/pixels.bin",
        "ns/trainings/dogs_1/r2/3/checkpoint.json",
        "ns/trainings/dogs_1/r2/3/checkpoint-0123.safetensors",
        "ns/trainings/dogs_1/r2/2/check/report.html",
    ]
    assert orphans(*kept, *lost, references=failed) == lost


def test_an_attempt_in_progress_keeps_what_its_check_read() -> None:
    assert orphans("ns/trainings/dogs_1/r2/3/image-data/pixels.bin") == []


def test_young_objects_are_kept() -> None:
    key = "ns/uploads/dogs_1/u9.zip"
    assert orphans(key, ages={key: NOW}) == []


def test_uploads_are_kept_if_the_references_to_them_are_unknown() -> None:
    unknown = References(revisions=frozenset(), trainings=frozenset(), uploads=None)
    assert orphans("ns/uploads/dogs_1/u9.zip", references=unknown) == []


def test_all_objects_of_an_absent_classifier_are_orphans() -> None:
    lost = ["ns/artifacts/dogs_1/r1/artifact.json", "ns/uploads/dogs_1/u1.zip"]
    assert orphans(*lost, references=None) == lost


def test_all_objects_of_an_absent_classifier_are_kept_while_one_is_young() -> None:
    old, young = "ns/uploads/dogs_1/u1.zip", "ns/uploads/dogs_1/u2.zip"
    assert orphans(old, young, ages={young: NOW}, references=None) == []


def test_the_same_id_in_another_namespace_is_another_classifier() -> None:
    assert orphans("other/artifacts/dogs_1/r1/artifact.json") == ["other/artifacts/dogs_1/r1/artifact.json"]


def test_unknown_keys_are_kept() -> None:
    assert orphans("ns/notes/dogs_1/a/b", "ns/uploads", references=None) == []


REVISION = "0123456789"
LOCATION = ClassifierLocation(namespace="team-a", classifier_id="dogs_1")
MANIFEST = {
    "metadata": {"namespace": "team-a", "name": "dogs", "uid": "u", "generation": 1, "resourceVersion": "1"},
    "spec": {**make_spec(), "pinnedRevision": REVISION},
    "status": {"classifierID": "dogs_1"},
}


class KnownClassifiers:
    """Stands in for the cluster."""

    async def list_pages(self, resource: object, scope: str | None) -> AsyncIterator[Page]:
        yield Page(items=[MANIFEST], resource_version="1", first=True)

    async def list_objects(self, resource: object, scope: str, selector: str) -> Listing:
        return Listing(items=(MANIFEST,) if selector.endswith("=dogs_1") else (), resource_version="1")


def build_sweep(store: Any, **limits: Any) -> StoreSweep:
    """A sweep without minimum age and, by default, without share limit."""
    given = {"minimum_age": timedelta(0), "limit_percent": 100, **limits}
    settings = SweepSettings(namespaces=(), adopted_installation="", **given)

    async def identify() -> str:
        return "this-installation"

    return StoreSweep(KnownClassifiers(), store, settings, identify)  # type: ignore[arg-type]


class StubbornStore:
    """An object store in which some keys cannot be deleted."""

    def __init__(self, folder: Path, *stuck: str) -> None:
        self._objects = open_store(folder.as_uri())
        self._stuck = stuck

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    async def delete(self, key: str) -> None:
        if key.startswith(self._stuck):
            raise StoreUnavailableError(f"object store: could not delete {key!r}")
        await self._objects.delete(key)


def swept(store: StubbornStore, contents: dict[str, bytes], times: int = 1) -> set[str]:
    """The keys that are left."""

    async def scenario() -> set[str]:
        for key, content in contents.items():
            await store.put(key, content)
        sweep = build_sweep(store)
        for _ in range(times):
            await sweep_again(sweep)
        return {item.key for item in await store.list_objects("tenants")}

    return asyncio.run(scenario())


@pytest.mark.parametrize("content", [b"[" * 50_000, b" " * (LIMITS_BYTES[DEFINITION] + 1), b"7"])
def test_an_unreadable_definition_keeps_the_uploads_of_its_classifier_only(tmp_path: Path, content: bytes) -> None:
    definition, upload = LOCATION.definition_key(REVISION), LOCATION.upload_key("a" * 64)
    orphan = "tenants/team-b/uploads/cats_1/x.zip"
    assert swept(StubbornStore(tmp_path), {definition: content, upload: b"zip", orphan: b"zip"}) == {definition, upload}


def test_objects_that_cannot_be_deleted_are_skipped(tmp_path: Path) -> None:
    stuck, orphan = "tenants/team-a/uploads/gone_1/x.zip", "tenants/team-b/uploads/gone_1/x.zip"
    assert swept(StubbornStore(tmp_path, stuck), {stuck: b"zip", orphan: b"zip"}) == {stuck}


def test_many_objects_that_cannot_be_deleted_do_not_block_the_next_sweep(tmp_path: Path) -> None:
    stuck = {f"tenants/team-a/uploads/gone_1/{number:02}.zip" for number in range(FAILED_DELETES_LIMIT)}
    deletable = {f"tenants/team-{team}/uploads/gone_1/x.zip" for team in "bcdefgh"}
    store = StubbornStore(tmp_path, "tenants/team-a/")
    assert swept(store, dict.fromkeys([*stuck, *deletable], b"zip"), times=2) == stuck


class CountingStore:
    """An object store that records which objects of tenants are read."""

    def __init__(self, folder: Path) -> None:
        self._objects = open_store(folder.as_uri())
        self.read: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    async def get(self, key: str, *, limit_bytes: int) -> bytes:
        if key.startswith("tenants/"):
            self.read.append(key)
        return await self._objects.get(key, limit_bytes=limit_bytes)


def definition_of(*digests: str) -> bytes:
    return json.dumps({"classes": [{"name": "cat", "examples": [{"upload": digest} for digest in digests]}]}).encode()


async def sweep_again(sweep: StoreSweep) -> None:
    await sweep.sweep(datetime.now(UTC) + timedelta(hours=2))


def test_only_the_first_sweep_reads_a_definition(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        store = CountingStore(tmp_path)
        await store.put(LOCATION.definition_key(REVISION), definition_of("a" * 64))
        sweep = build_sweep(store)
        for _ in range(3):
            await sweep_again(sweep)
        return store.read

    assert asyncio.run(scenario()) == [LOCATION.definition_key(REVISION)]


def test_a_rewritten_definition_is_read_again(tmp_path: Path) -> None:
    async def scenario() -> set[str]:
        store = CountingStore(tmp_path)
        await store.put(LOCATION.definition_key(REVISION), definition_of("a" * 64, "b" * 64))
        for digest in ("a" * 64, "b" * 64):
            await store.put(LOCATION.upload_key(digest), b"zip")
        sweep = build_sweep(store)
        await sweep_again(sweep)
        await store.put(LOCATION.definition_key(REVISION), definition_of("a" * 64))
        await sweep_again(sweep)
        return {item.key for item in await store.list_objects(LOCATION.uploads_prefix)}

    assert asyncio.run(scenario()) == {LOCATION.upload_key("a" * 64)}


def test_copies_of_sources_are_kept_while_a_definition_pins_them(tmp_path: Path) -> None:
    async def scenario() -> set[str]:
        store = CountingStore(tmp_path)
        pinned = [{"url": "https://data.test/a.zip", "sha256": "a" * 64}]
        definition = json.dumps({"classes": [{"name": "cat", "examples": pinned}]}).encode()
        await store.put(LOCATION.definition_key(REVISION), definition)
        for digest in ("a" * 64, "b" * 64):
            await store.put(LOCATION.source_key(digest), b"zip")
        await sweep_again(build_sweep(store))
        return {item.key for item in await store.list_objects(LOCATION.sources_prefix)}

    assert asyncio.run(scenario()) == {LOCATION.source_key("a" * 64)}


def test_a_missing_definition_is_not_requested(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        store = CountingStore(tmp_path)
        await store.put(LOCATION.upload_key("a" * 64), b"zip")
        await sweep_again(build_sweep(store))
        return store.read

    assert asyncio.run(scenario()) == []


DRAWN = ClassifierLocation(namespace="team-b", classifier_id="drawn_1")


def left_after_sweeps(folder: Path, contents: list[str], *moments: datetime, **limits: Any) -> set[str]:
    """The keys that are left after sweeps at these moments, with the share limit of the default."""

    async def scenario() -> set[str]:
        store = open_store(folder.as_uri())
        for key in contents:
            await store.put(key, b"zip")
        sweep = build_sweep(store, limit_percent=25, **limits)
        for moment in moments:
            await sweep.sweep(moment)
        return {item.key for item in await store.list_objects("tenants")}

    return asyncio.run(scenario())


def test_uploads_of_a_drawn_id_are_kept_for_an_hour_and_then_deleted(tmp_path: Path) -> None:
    now, hour = datetime.now(UTC), timedelta(hours=1)
    keys = [DRAWN.pending_uploads_key, *(DRAWN.upload_key(f"{number:064x}") for number in range(30))]
    limits = {"minimum_age": hour}
    assert left_after_sweeps(tmp_path, keys, now, now + 0.9 * hour, **limits) == set(keys)
    assert left_after_sweeps(tmp_path, [], now + 1.1 * hour, now + 2.2 * hour, **limits) == set()


def test_uploads_that_no_classifier_refers_to_and_that_are_not_marked_stop_the_sweep_of_a_namespace(tmp_path: Path) -> None:
    key = DRAWN.upload_key("a" * 64)
    assert left_after_sweeps(tmp_path, [key], NOW, NOW + timedelta(days=1)) == {key}


def test_marked_uploads_do_not_hide_that_classifiers_are_missing(tmp_path: Path) -> None:
    gone = ClassifierLocation(namespace=DRAWN.namespace, classifier_id="gone_1").artifact_key(REVISION, "artifact.json")
    marked = [DRAWN.pending_uploads_key, *(DRAWN.upload_key(f"{number:064x}") for number in range(30))]
    assert gone in left_after_sweeps(tmp_path, [gone, *marked], NOW, NOW + timedelta(days=1))
