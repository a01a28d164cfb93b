"""An invalid spec results in a condition that names the object, the fact and the remedy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.operator.conftest import SharedScene
from tests.integration.operator.scene import Scene

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def scene(shared_scene: SharedScene) -> Iterator[Scene]:
    with shared_scene("specs") as scene:
        yield scene


def test_too_few_examples_are_named(scene: Scene) -> None:
    scene.apply(scene.build("small", second="few"))
    stalled = scene.wait_for_condition("Stalled", "InvalidData", "small")
    assert "few" in stalled["message"]
    assert "add at least 7" in stalled["message"]
    assert scene.condition("DataValid", "small")["status"] == "False"
    assert scene.condition("Reconciling", "small") == {}


def test_a_missing_source_is_named(scene: Scene) -> None:
    scene.apply(scene.build("missing", second="missing"))
    scene.wait_for_condition("Stalled", "SourceUnreadable", "missing")
    assert scene.condition("DataValid", "missing")["reason"] == "SourceUnreadable"
    assert f"{scene.sources.address}/missing.zip" in scene.condition("DataValid", "missing")["message"]


def test_an_unschedulable_trainer_is_reported_with_the_schedulers_message_and_can_be_fixed(scene: Scene) -> None:
    scene.apply(scene.build("large", training={"resources": {"requests": {"cpu": "9000"}}}))
    ready = scene.wait_for_condition("Ready", "Unschedulable", "large")
    assert "Insufficient cpu" in ready["message"]
    assert scene.condition("Reconciling", "large")["status"] == "True"
    assert scene.condition("Stalled", "large") == {}
    scene.patch('{"spec": {"training": {"resources": null}}}', "large")
    scene.wait_until_ready("large")


def test_resources_that_the_api_server_rejects_are_reported(scene: Scene) -> None:
    scene.apply(scene.build("refused", training={"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}))
    stalled = scene.wait_for_condition("Stalled", "TrainingFailed", "refused")
    assert "must be less than or equal to memory limit" in stalled["message"]
    assert "correct spec.training" in stalled["message"]
    assert [name for name in scene.names(scene.jobs()) if name.startswith("refused")] == []


def test_a_pin_to_a_missing_revision_stalls_and_can_be_removed(scene: Scene) -> None:
    scene.apply(scene.build("pinned"))
    scene.wait_until_ready("pinned")
    scene.patch('{"spec": {"pinnedRevision": "0123456789"}}', "pinned")
    stalled = scene.wait_for_condition("Stalled", "RevisionNotFound", "pinned")
    assert "remove the pin" in stalled["message"]
    scene.patch('{"spec": {"pinnedRevision": null}}', "pinned")
    scene.wait_until_ready("pinned")
