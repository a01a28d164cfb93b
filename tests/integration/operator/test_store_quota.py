"""A namespace that has used up its quota in the embedded store: served revisions stay, and conditions name the remedy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocelli_local import SyncClusterAccess
from ocelli_model.publish import publish_backbone
from ocelli_storage.embedded_store import EmbeddedStore
from ocelli_storage.object_store import StoreQuotaError
from tests.integration.operator.operator_process import OperatorProcess
from tests.integration.operator.scene import Scene
from tests.integration.store.store_process import ADMINISTRATOR, StoreProcess, running_store_process

pytestmark = pytest.mark.cluster

DEFINITION_BYTES = 150_000
"""Enough for the definition of a training including its key, and for nothing else."""


@pytest.fixture
def store(local_cluster: SyncClusterAccess, namespace: str, tmp_path: Path) -> Iterator[StoreProcess]:
    """A store with a quota of a few megabytes per namespace."""
    with running_store_process(local_cluster, namespace, tmp_path, OCELLI_STORE_NAMESPACE_QUOTA="8Mi") as store:
        yield store


@pytest.fixture
def objects(store: StoreProcess, build_operator: Callable[..., OperatorProcess]) -> EmbeddedStore:
    """The store, and an operator that uses it."""
    objects = store.open_as_administrator()
    operator = build_operator(
        OCELLI_STORE_URL=store.url,
        OCELLI_STORE_TOKEN_FILE=str(store.save_token(store.namespace, ADMINISTRATOR)),
        OCELLI_BACKBONES=str(asyncio.run(publish_backbone(objects, "EfficientNetLite0"))),
    )
    operator.start()
    operator.wait_until_leading()
    return objects


def fill(objects: EmbeddedStore, namespace: str, *, free_bytes: int = 0) -> None:
    """Use up the namespace's quota except for this many bytes."""

    async def put_until_full() -> None:
        folder = f"tenants/{namespace}/filler"
        await objects.put(f"{folder}/free", b"x" * free_bytes)
        for size_bytes in (1_000_000, 100_000, 10_000, 1000):
            for number in range(20):
                try:
                    await objects.put(f"{folder}/{size_bytes}-{number}", b"x" * size_bytes)
                except StoreQuotaError:
                    break
        await objects.delete(f"{folder}/free")

    asyncio.run(put_until_full())


def make_room(objects: EmbeddedStore, namespace: str) -> None:
    asyncio.run(objects.delete_prefix(f"tenants/{namespace}/filler"))


def test_a_retraining_beyond_the_quota_fails_immediately_and_the_served_revision_stays(
    scene: Scene, objects: EmbeddedStore
) -> None:
    scene.apply(scene.build())
    first = scene.wait_until_ready()["servedRevision"]
    fill(objects, scene.namespace, free_bytes=DEFINITION_BYTES)
    scene.apply(scene.build(model={"seed": 1}))
    stalled = scene.wait_for_condition("Stalled", "TrainingFailed")
    assert f'namespace "{scene.namespace}" exceeds its quota in the store' in stalled["message"]
    assert "of 8.0 MiB are used" in stalled["message"]
    assert "delete classifiers that are no longer needed" in stalled["message"]
    assert scene.status()["servedRevision"] == first
    assert scene.condition("Available")["status"] == "True"
    failed = [pod for pod in scene.pods("training") if pod["status"]["phase"] == "Failed"]
    assert len(failed) == 1, "one that is tried again finds no more room"
    make_room(objects, scene.namespace)
    scene.patch('{"spec": {"retrainNonce": 1}}')
    assert scene.wait_until_ready()["servedRevision"] != first


def test_a_training_whose_definition_exceeds_the_quota_waits(scene: Scene, objects: EmbeddedStore) -> None:
    fill(objects, scene.namespace)
    scene.apply(scene.build())

    def find_message() -> str | None:
        trained = scene.condition("Trained")
        message = str(trained.get("message"))
        return message if trained.get("reason") == "Queued" and "exceeds its quota in the store" in message else None

    message = scene.cluster.wait_for("the quota is reported", find_message)
    assert "waits for quota" in message
    assert "ask the administrator of this installation for a larger quota" in message
    assert scene.condition("Stalled") == {}
    assert scene.jobs() == []
    make_room(objects, scene.namespace)
    scene.wait_until_ready()
