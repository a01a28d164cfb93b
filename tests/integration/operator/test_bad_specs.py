"""What is wrong with a spec ends in a condition that names object, fact and remedy. One operator sees all of them."""

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


def test_a_source_that_is_not_there_is_named(scene: Scene) -> None:
    scene.apply(scene.build("missing", second="missing"))
    scene.wait_for_condition("Stalled", "SourceUnreadable", "missing")
    assert scene.condition("DataValid", "missing")["reason"] == "SourceUnreadable"
    assert f"{scene.sources.address}/missing.zip" in scene.condition("DataValid", "missing")["message"]


def test_a_trainer_without_a_node_is_told_in_the_schedulers_words_and_can_be_helped(scene: Scene) -> None:
    scene.apply(scene.build("large", training={"resources": {"requests": {"cpu": "9000"}}}))
    ready = scene.wait_for_condition("Ready", "Unschedulable", "large")
    assert "Insufficient cpu" in ready["message"]
    assert scene.condition("Reconciling", "large")["status"] == "True"
    assert scene.condition("Stalled", "large") == {}
    scene.patch('{"spec": {"training": {"resources": null}}}', "large")
    scene.wait_until_ready("large")


def test_resources_that_the_api_server_refuses_are_told(scene: Scene) -> None:
    scene.apply(scene.build("refused", training={"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}}))
    stalled = scene.wait_for_condition("Stalled", "TrainingFailed", "refused")
    assert "must be less than or equal to memory limit" in stalled["message"]
    assert "correct spec.training" in stalled["message"]
    assert [name for name in scene.names(scene.jobs()) if name.startswith("refused")] == []


def test_a_pin_to_nothing_stalls_and_is_undone(scene: Scene) -> None:
    scene.apply(scene.build("pinned"))
    scene.wait_until_ready("pinned")
    scene.patch('{"spec": {"pinnedRevision": "0123456789"}}', "pinned")
    stalled = scene.wait_for_condition("Stalled", "RevisionNotFound", "pinned")
    assert "remove the pin" in stalled["message"]
    scene.patch('{"spec": {"pinnedRevision": null}}', "pinned")
    scene.wait_until_ready("pinned")
