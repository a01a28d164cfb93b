"""What happens when the served artifact is missing from the store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ocelli_api.classifier import Classifier
from ocelli_api.conditions import Condition, ConditionType
from ocelli_cluster.client import Listing
from ocelli_cluster.resources import ObjectKey
from ocelli_operator.metrics import OperatorMetrics
from ocelli_operator.observed import ChildKind
from ocelli_operator.reconcile import Reconciler, ReconcilerParts
from ocelli_operator.starts import Workloads
from ocelli_operator.training_store import TrainingStore
from ocelli_storage.layout import ARTIFACT_METADATA, ClassifierLocation
from ocelli_storage.store_url import open_store
from tests.unit.operator.factories import (
    CLASSIFIER_ID,
    NO_WORKLOADS,
    NOW,
    World,
    make_job,
    make_polls,
    make_settings,
    make_starts,
    settled_world,
)

KEY = ObjectKey("team-a", "dogs")
LOCATION = ClassifierLocation(namespace="team-a", classifier_id=CLASSIFIER_ID)


FIELD_OF_KIND = {
    ChildKind.SERVICE: "services",
    ChildKind.AUTOSCALER: "autoscalers",
    ChildKind.DISRUPTION_BUDGET: "disruption_budgets",
    ChildKind.NETWORK_POLICY: "network_policies",
}


class WorldView:
    """The cluster of a world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def classifier(self, _key: ObjectKey) -> Classifier:
        return self.world.observed.classifier

    def workloads(self, _key: ObjectKey) -> Workloads:
        return NO_WORKLOADS

    def children(self, kind: ChildKind, _key: ObjectKey) -> Any:
        return getattr(self.world.observed, FIELD_OF_KIND[kind])

    def gpu_nodes(self) -> tuple[()]:
        return ()

    def take(self, *_: object) -> None:
        """The world is not changed by writes."""

    def __getattr__(self, kind: str) -> Any:
        return lambda *_: getattr(self.world.observed, kind)


class Scene:
    """A settled Classifier whose artifact is missing, and the reconciles of it."""

    def __init__(self, folder: Path) -> None:
        self.world = settled_world()
        self.store = open_store(folder.as_uri())
        self.reads: list[str] = []
        self.jobs: list[str] = []
        self.start()

    def start(self) -> None:
        """An operator before its first sweep."""

        async def create(_resource: object, _namespace: str, body: dict[str, Any], **_: object) -> dict[str, Any]:
            self.jobs.append(body["metadata"]["name"])
            return body

        async def apply(*_: object, **__: object) -> dict[str, Any]:
            return {}

        async def list_objects(*_: object) -> Listing:
            return Listing(items=(), resource_version="1")

        async def record(*_: object) -> None:
            return None

        parts: Any = ReconcilerParts(
            client=SimpleNamespace(create=create, apply=apply, list_objects=list_objects),  # type: ignore[arg-type]
            view=WorldView(self.world),  # type: ignore[arg-type]
            store=TrainingStore(self._counted()),
            events=SimpleNamespace(record=record),  # type: ignore[arg-type]
            metrics=OperatorMetrics(),
            settings=make_settings(),
            starts=make_starts(),
            source_polls=make_polls(),
            clock=lambda: NOW,
        )
        self.reconciler = Reconciler(parts)

    def _counted(self) -> Any:
        scene = self

        class Counted:
            def __getattr__(self, name: str) -> Any:
                return getattr(scene.store, name)

            async def get(self, key: str, *, limit_bytes: int) -> bytes:
                scene.reads.append(key)
                return await scene.store.get(key, limit_bytes=limit_bytes)

            async def exists(self, key: str) -> bool:
                scene.reads.append(key)
                return await scene.store.exists(key)

        return Counted()

    def lose(self) -> None:
        """The sweep does not find the artifact."""
        self.reconciler.note_lost_artifacts({KEY: self.world.revision})

    def run(self) -> str:
        """One reconcile; the reason of `Ready` that it would write."""

        async def write_status(_classifier: Classifier, plan: Any) -> None:
            self.world.see(classifier=replace(self.world.observed.classifier, status=plan.status))

        self.reconciler._write_status = write_status  # type: ignore[method-assign]
        asyncio.run(self.reconciler.reconcile(KEY))
        return self.ready.reason

    @property
    def ready(self) -> Condition:
        """The last written `Ready`."""
        ready = self.world.status.condition(ConditionType.READY)
        assert ready is not None
        return ready


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "store")


def test_it_is_reported_and_not_trained_automatically(scene: Scene) -> None:
    scene.lose()
    assert scene.run() == "ArtifactLost"
    assert scene.jobs == []


def test_the_store_is_not_asked_for_it(scene: Scene) -> None:
    scene.lose()
    for _ in range(3):
        scene.run()
    assert scene.reads == []


def test_a_successor_reports_it_before_its_first_sweep(scene: Scene) -> None:
    scene.lose()
    scene.run()
    scene.start()
    assert scene.run() == "ArtifactLost"


def test_a_raised_nonce_trains_it_again(scene: Scene) -> None:
    scene.lose()
    scene.run()
    scene.world.edit(retrainNonce=1)
    scene.run()
    assert len(scene.jobs) == 1


def test_it_is_reported_while_the_revision_is_trained_again(scene: Scene) -> None:
    scene.lose()
    scene.run()
    scene.world.edit(retrainNonce=1)
    assert scene.run() == "ArtifactLost"
    assert "restore it from a backup; training Job" in scene.ready.message


def test_it_is_reported_while_another_revision_is_trained(scene: Scene) -> None:
    scene.lose()
    served = scene.world.revision
    scene.world.edit(model={"seed": 7})
    assert scene.run() == "ArtifactLost"
    assert f"the artifact of revision {served} is missing from the object store" in scene.ready.message


@pytest.mark.parametrize("edit", [{"retrainNonce": 1}, {"model": {"seed": 7}}], ids=["the same", "another"])
def test_it_is_reported_after_a_failed_training(scene: Scene, edit: dict[str, Any]) -> None:
    scene.lose()
    scene.run()
    scene.world.edit(**edit)
    scene.run()
    classifier = scene.world.observed.classifier
    job = make_job(classifier, classifier.status.attempt, finished=True, failure_reason="BackoffLimitExceeded")
    scene.world.see(jobs=(job,))
    assert scene.run() == "ArtifactLost"
    assert "restore it from a backup; training Job" in scene.ready.message
    assert scene.world.status.condition(ConditionType.STALLED) is not None


def test_a_successor_continues_the_training_of_a_lost_artifact(scene: Scene) -> None:
    scene.lose()
    scene.run()
    scene.world.edit(retrainNonce=1)
    scene.run()
    scene.start()
    scene.run()
    assert scene.world.status.training_revision == scene.world.revision


def test_a_restored_one_is_ready_after_the_next_sweep(scene: Scene) -> None:
    scene.lose()
    scene.run()
    assert scene.reconciler.note_lost_artifacts({}) == {KEY}
    asyncio.run(scene.store.put(LOCATION.artifact_key(scene.world.revision, ARTIFACT_METADATA), b'{"backbone": {"name": "x"}}'))
    assert scene.run() == "Served"


def test_a_known_loss_triggers_no_reconcile(scene: Scene) -> None:
    lost = {KEY: scene.world.revision}
    assert scene.reconciler.note_lost_artifacts(lost) == {KEY}
    assert scene.reconciler.note_lost_artifacts(lost) == set()
