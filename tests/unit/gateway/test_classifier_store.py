"""The gateway's cache of fully parsed Classifiers."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

import pytest

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, Classifier, Manifest, parse_classifier
from ocelli_api.names import build_object_name
from ocelli_cluster.resources import CLASSIFIERS
from ocelli_gateway import classifier_store
from ocelli_gateway.classifier_errors import ClassifierNotFoundError
from ocelli_gateway.classifier_store import ClassifierStore
from tests.gateway_harness.in_memory_cluster import InMemoryCluster


def put(cluster: InMemoryCluster, identity: str, **status: Any) -> None:
    metadata = {"name": build_object_name(identity), "labels": {CLASSIFIER_ID_LABEL: identity}}
    examples = [{"upload": "a" * 64, "round": 1}]
    spec = {"displayName": identity, "classes": [{"name": name, "examples": examples} for name in ("a", "b")]}
    cluster.put(CLASSIFIERS, "team-a", {"metadata": metadata, "spec": spec, "status": status})


def count_parsings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the Classifiers that are parsed from now on."""
    parsed: list[str] = []

    def parse(manifest: Manifest) -> Classifier:
        parsed.append(manifest["metadata"]["name"])
        return parse_classifier(manifest)

    monkeypatch.setattr(classifier_store, "parse_manifest", parse)
    return parsed


def test_brief_list_parses_only_changed_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = count_parsings(monkeypatch)
    cluster = InMemoryCluster()
    for number in range(5):
        put(cluster, f"heron_{number + 1}")
    store = ClassifierStore(cluster, "built-in")  # type: ignore[arg-type]

    async def scenario() -> list[list[str]]:
        lists = [[item.display_name for item in await store.list_brief("team-a")]]
        put(cluster, "heron_3", classifierID="heron_3")
        cluster.remove(CLASSIFIERS, "team-a", "heron-1")
        lists += [[item.display_name for item in await store.list_brief("team-a")] for _ in range(3)]
        return lists

    lists = asyncio.run(scenario())
    assert sorted(lists[0]) == [f"heron_{number}" for number in (1, 2, 3, 4, 5)]
    assert [sorted(names) for names in lists[1:]] == [[f"heron_{number}" for number in (2, 3, 4, 5)]] * 3
    assert sorted(parsed) == ["heron-1", "heron-2", "heron-3", "heron-3", "heron-4", "heron-5"]


def test_brief_lists_remember_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier_store, "BRIEFS_LIMIT", 3)
    cluster = InMemoryCluster()
    for number in range(5):
        put(cluster, f"heron_{number + 1}")
    store = ClassifierStore(cluster, "built-in")  # type: ignore[arg-type]
    assert len(asyncio.run(store.list_brief("team-a"))) == 5
    assert len(store._briefs) == 3


def test_unknown_id_is_looked_up_once_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = InMemoryCluster()
    store = ClassifierStore(cluster, "built-in")  # type: ignore[arg-type]

    async def ask(times: int) -> int:
        before = cluster.reads_by_id
        for _ in range(times):
            with pytest.raises(ClassifierNotFoundError):
                await store.read("team-a", "owl_1")
            assert await store.find("team-a", ["owl_1"]) == {}
        return cluster.reads_by_id - before

    async def scenario() -> None:
        first = await ask(1)
        assert await ask(20) == 0
        monkeypatch.setattr(classifier_store, "ABSENT_SECONDS", 0.0)
        assert await ask(1) == 2 * first

    asyncio.run(scenario())


def test_many_unknown_ids_are_looked_up_once_in_a_second() -> None:
    cluster = InMemoryCluster()
    store = ClassifierStore(cluster, "built-in")  # type: ignore[arg-type]
    lists: list[str] = []
    list_objects = cluster.list_objects

    async def count(*arguments: Any) -> Any:
        lists.append("list")
        return await list_objects(*arguments)

    cluster.list_objects = count  # type: ignore[method-assign]
    wanted = [f"owl_{number + 1}" for number in range(classifier_store.SINGLE_READS_LIMIT + 10)]

    async def scenario() -> None:
        for _ in range(20):
            assert await store.find("team-a", wanted) == {}

    asyncio.run(scenario())
    assert len(lists) == 1


def test_unknown_id_is_found_as_soon_as_this_replica_has_created_it() -> None:
    cluster = InMemoryCluster()
    store = ClassifierStore(cluster, "built-in")  # type: ignore[arg-type]

    async def scenario() -> str | None:
        with pytest.raises(ClassifierNotFoundError):
            await store.read("team-a", "owl_1")
        metadata = {"namespace": "team-a", "name": "owl-1", "labels": {CLASSIFIER_ID_LABEL: "owl_1"}}
        await store.create({"metadata": metadata, "spec": {"classes": [{"name": "a", "examples": [{"upload": "a" * 64}]}]}})
        return (await store.read("team-a", "owl_1")).classifier_id

    assert asyncio.run(scenario()) == "owl_1"


def test_cached_classifier_is_dropped_once_it_is_too_old_to_be_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier_store, "CONFIRMED_SECONDS", 0.0)
    cluster = InMemoryCluster()
    for identity in ("heron_1", "owl_2"):
        metadata = {"name": build_object_name(identity), "labels": {CLASSIFIER_ID_LABEL: identity}}
        examples = [{"upload": "a" * 64, "round": 1}]
        cluster.put(CLASSIFIERS, "team-a", {"metadata": metadata, "spec": {"classes": [{"name": "a", "examples": examples}]}})
    store = ClassifierStore(cluster, "built-in")  # type: ignore[arg-type]

    async def read_both() -> weakref.ref[object]:
        first: weakref.ref[object] = weakref.ref(await store.read("team-a", "heron_1"))
        await store.read("team-a", "owl_2")
        return first

    assert asyncio.run(read_both())() is None
