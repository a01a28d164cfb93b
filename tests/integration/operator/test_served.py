"""A served Classifier on a real control plane: what users see, and how the operator repairs changes to its children."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.operator.conftest import SharedScene
from tests.integration.operator.scene import Scene

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def scene(shared_scene: SharedScene) -> Iterator[Scene]:
    """A namespace with a served Classifier."""
    with shared_scene("served") as scene:
        scene.apply(scene.build())
        scene.kubectl("wait", "--for=condition=Ready", "clf/colours", "--timeout=90s")
        yield scene


def test_a_manifest_becomes_a_served_model(scene: Scene) -> None:
    status = scene.wait_until_ready()
    assert status["servedRevision"] == status["settledRevision"]
    assert scene.get()["metadata"]["labels"]["ocelli.dev/classifier-id"] == status["classifierID"]
    assert "ocelli.dev/kopf" not in str(scene.get()["metadata"])
    assert "finalizers" not in scene.get()["metadata"]
    assert set(scene.get()["metadata"].get("annotations", {})) <= {"kubectl.kubernetes.io/last-applied-configuration"}


def test_kubectl_shows_it(scene: Scene) -> None:
    header, row = scene.kubectl("get", "clf").splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "PROGRESS", "ACCURACY", "AGE"]
    assert row.split()[:3] == ["colours", "True", "Served"]
    wide, _ = scene.kubectl("get", "clf", "-o", "wide").splitlines()
    assert wide.split()[6:] == ["AVAILABLE", "REVISION", "MESSAGE"]
    described = scene.kubectl("describe", "clf", "colours")
    shown = [word for word in ("TrainingStarted", "ArtifactStored", "Switched", "Served") if word in described]
    assert shown == ["TrainingStarted", "ArtifactStored", "Switched", "Served"]


@pytest.mark.parametrize("drift", [["delete", "deployment", "--all"], ["delete", "service", "clf-colours"]])
def test_deleted_children_are_recreated(scene: Scene, drift: list[str]) -> None:
    scene.kubectl(*drift)
    scene.cluster.wait_for("the Deployment is back", lambda: len(scene.deployments()) == 1)
    scene.cluster.wait_for("the Service is back", lambda: "clf-colours" in scene.kubectl("get", "service", "-o", "name"))
    scene.wait_until_ready()


def test_a_scaled_deployment_is_scaled_back(scene: Scene) -> None:
    (name,) = scene.names(scene.deployments())
    scene.kubectl("scale", "deployment", name, "--replicas=3")
    scene.cluster.wait_for("it has one replica again", lambda: scene.deployments()[0]["spec"]["replicas"] == 1)


def test_scaling_changes_no_revision(scene: Scene) -> None:
    before = scene.wait_until_ready()
    scene.patch('{"spec": {"serving": {"replicas": 2}}}')
    scene.cluster.wait_for("two servers are ready", lambda: "2 inference servers" in scene.condition("Available")["message"])
    scene.wait_until_ready()
    assert scene.status()["servedRevision"] == before["servedRevision"]
    assert "poddisruptionbudget.policy/colours" in scene.kubectl("get", "pdb", "-o", "name")
