"""Gates on a real control plane, with real trainings: a worse revision is held, and what releases it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.integration.operator.conftest import SharedScene
from tests.integration.operator.scene import Scene

pytestmark = pytest.mark.cluster

DROP = {"maxAccuracyDrop": "0.05"}


@pytest.fixture(scope="module")
def scene(shared_scene: SharedScene) -> Iterator[Scene]:
    with shared_scene("promotion") as scene:
        yield scene


@pytest.fixture(scope="module")
def good(scene: Scene) -> str:
    """The first revision of the Classifier `colours`, which serves unless a test releases another."""
    scene.apply(scene.build_tested(promotion=DROP))
    revision: str = scene.wait_until_ready()["servedRevision"]
    return revision


def hold_a_worse_revision(scene: Scene, seed: int) -> str:
    """Train a revision that learned from swapped examples, which is held; returns it."""
    scene.apply(scene.build_tested(swapped=True, promotion=DROP, model={"seed": seed}))
    scene.wait_for_condition("Promoted", "Regressed")
    revision: str = scene.status()["history"][0]["revision"]
    return revision


def test_a_worse_revision_is_held_with_its_figures(scene: Scene, good: str) -> None:
    worse = hold_a_worse_revision(scene, seed=1)
    stalled = scene.condition("Stalled")
    assert stalled["reason"] == "Regressed"
    assert f"revision {worse} is 1.000 less accurate than revision {good} on 20 images" in stalled["message"]
    assert scene.status()["servedRevision"] == good
    assert scene.condition("Available")["status"] == "True"
    assert scene.names(scene.deployments()) == [f"colours-{good}"]


def test_an_approval_serves_it_without_a_job_and_a_revert_rolls_back(scene: Scene, good: str) -> None:
    # Held already if the test before ran.
    worse = hold_a_worse_revision(scene, seed=1)
    attempts = scene.status()["attempt"]
    scene.patch(json.dumps({"spec": {"approvedRevision": worse}}))
    assert scene.wait_until_ready()["servedRevision"] == worse
    scene.apply(scene.build_tested(promotion=DROP))
    status = scene.wait_until_ready()
    assert (status["servedRevision"], status["attempt"]) == (good, attempts)
    assert scene.condition("Promoted")["status"] == "True"


@pytest.mark.usefixtures("good")
def test_a_wider_gate_serves_it_without_a_job(scene: Scene) -> None:
    worse = hold_a_worse_revision(scene, seed=2)
    attempts = scene.status()["attempt"]
    scene.patch(json.dumps({"spec": {"promotion": {"maxAccuracyDrop": "1"}}}))
    status = scene.wait_until_ready()
    assert (status["servedRevision"], status["attempt"]) == (worse, attempts)


def test_a_better_revision_is_promoted(scene: Scene) -> None:
    scene.apply(scene.build_tested("better", swapped=True, promotion={"maxAccuracyDrop": "0"}))
    scene.wait_until_ready("better")
    scene.apply(scene.build_tested("better", promotion={"maxAccuracyDrop": "0"}))
    status = scene.wait_until_ready("better")
    assert status["history"][0]["comparison"]["accuracyDrop"]["drop"] == "-1.000"
    assert "1.000 more accurate" in scene.condition("Promoted", "better")["message"]


def test_a_first_revision_below_the_minimum_does_not_serve(scene: Scene) -> None:
    scene.apply(scene.build_tested("first", swapped=True, promotion={"minAccuracy": "0.5"}))
    scene.wait_for_condition("Stalled", "BelowMinimumAccuracy", "first")
    assert "servedRevision" not in scene.status("first")
    assert [name for name in scene.names(scene.deployments()) if name.startswith("first")] == []


def test_a_manual_approval(scene: Scene) -> None:
    scene.apply(scene.build_tested("manual", promotion={"minAccuracy": "0.9", "approval": "Manual"}))
    scene.wait_for_condition("Promoted", "AwaitingApproval", "manual")
    assert scene.condition("Stalled", "manual") == {}
    revision = scene.status("manual")["history"][0]["revision"]
    assert f'set spec.approvedRevision to "{revision}"' in scene.condition("Ready", "manual")["message"]
    scene.patch(json.dumps({"spec": {"approvedRevision": revision}}), "manual")
    assert scene.wait_until_ready("manual")["servedRevision"] == revision
