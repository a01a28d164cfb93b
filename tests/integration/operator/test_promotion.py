"""Gates on a real control plane, with real trainings: a worse revision is held, and what releases it."""

from __future__ import annotations

import json

import pytest

from tests.integration.operator.scene import Scene

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]

DROP = {"maxAccuracyDrop": "0.05"}


def hold_a_worse_revision(scene: Scene) -> tuple[str, str]:
    """A good revision serves, and one that learned from swapped examples is held. Returns both."""
    scene.apply(scene.build_tested(promotion=DROP))
    good = scene.wait_until_ready()["servedRevision"]
    scene.apply(scene.build_tested(swapped=True, promotion=DROP))
    scene.wait_for_condition("Promoted", "Regressed")
    return good, scene.status()["history"][0]["revision"]


def test_a_worse_revision_is_held_with_its_figures(scene: Scene) -> None:
    good, worse = hold_a_worse_revision(scene)
    stalled = scene.condition("Stalled")
    assert stalled["reason"] == "Regressed"
    assert f"revision {worse} is 1.000 less accurate than revision {good} on 20 images" in stalled["message"]
    assert scene.status()["servedRevision"] == good
    assert scene.condition("Available")["status"] == "True"
    assert scene.names(scene.deployments()) == [f"colours-{good}"]


def test_an_approval_serves_it_without_a_job_and_a_revert_rolls_back(scene: Scene) -> None:
    good, worse = hold_a_worse_revision(scene)
    attempts = scene.status()["attempt"]
    scene.patch(json.dumps({"spec": {"approvedRevision": worse}}))
    assert scene.wait_until_ready()["servedRevision"] == worse
    scene.apply(scene.build_tested(promotion=DROP))
    status = scene.wait_until_ready()
    assert (status["servedRevision"], status["attempt"]) == (good, attempts)
    assert scene.condition("Promoted")["status"] == "True"


def test_a_wider_gate_serves_it_without_a_job(scene: Scene) -> None:
    _, worse = hold_a_worse_revision(scene)
    attempts = scene.status()["attempt"]
    scene.patch(json.dumps({"spec": {"promotion": {"maxAccuracyDrop": "1"}}}))
    status = scene.wait_until_ready()
    assert (status["servedRevision"], status["attempt"]) == (worse, attempts)


def test_a_better_revision_is_promoted(scene: Scene) -> None:
    scene.apply(scene.build_tested(swapped=True, promotion={"maxAccuracyDrop": "0"}))
    scene.wait_until_ready()
    scene.apply(scene.build_tested(promotion={"maxAccuracyDrop": "0"}))
    status = scene.wait_until_ready()
    assert status["history"][0]["comparison"]["accuracyDrop"]["drop"] == "-1.000"
    assert "1.000 more accurate" in scene.condition("Promoted")["message"]


def test_a_first_revision_below_the_minimum_does_not_serve(scene: Scene) -> None:
    scene.apply(scene.build_tested(swapped=True, promotion={"minAccuracy": "0.5"}))
    scene.wait_for_condition("Stalled", "BelowMinimumAccuracy")
    assert "servedRevision" not in scene.status()
    assert scene.deployments() == []


def test_a_manual_approval(scene: Scene) -> None:
    scene.apply(scene.build_tested(promotion={"minAccuracy": "0.9", "approval": "Manual"}))
    scene.wait_for_condition("Promoted", "AwaitingApproval")
    assert scene.condition("Stalled") == {}
    revision = scene.status()["history"][0]["revision"]
    assert f'set spec.approvedRevision to "{revision}"' in scene.condition("Ready")["message"]
    scene.patch(json.dumps({"spec": {"approvedRevision": revision}}))
    assert scene.wait_until_ready()["servedRevision"] == revision
