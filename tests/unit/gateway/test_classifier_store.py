"""What the gateway keeps in memory of Classifiers that it has read whole."""

from __future__ import annotations

import asyncio
import weakref

import pytest

from ocelli_api.classifier import CLASSIFIER_ID_LABEL
from ocelli_api.names import build_object_name
from ocelli_cluster.resources import CLASSIFIERS
from ocelli_gateway import classifier_store
from ocelli_gateway.classifier_store import ClassifierStore
from tests.unit.gateway.in_memory_cluster import InMemoryCluster


def test_whole_classifier_is_forgotten_once_it_is_too_old_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
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
