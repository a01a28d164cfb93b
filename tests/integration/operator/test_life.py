"""The life of a Classifier on a real control plane: create, retrain, roll back, delete."""

from __future__ import annotations

import pytest

from tests.integration.operator.operator_process import OperatorProcess
from tests.integration.operator.scene import Scene

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]


def test_an_edit_during_a_training_replaces_the_job_and_is_served(scene: Scene) -> None:
    scene.sources.hold()
    scene.apply(scene.build())
    scene.wait_for_condition("Trained", "Training")
    (old,) = scene.names(scene.jobs())
    scene.apply(scene.build(model={"seed": 1}))
    scene.cluster.wait_for("the old Job is gone", lambda: old not in scene.names(scene.jobs()))
    scene.sources.release()
    status = scene.wait_until_ready()
    (new,) = scene.names(scene.jobs())
    assert status["servedRevision"] in new
    assert status["servedRevision"] not in old


def test_the_old_revision_answers_until_the_new_one_does(scene: Scene) -> None:
    scene.apply(scene.build())
    first = scene.wait_until_ready()["servedRevision"]
    scene.sources.hold()
    scene.apply(scene.build(model={"seed": 1}))
    scene.wait_for_condition("Ready", "Retraining")
    assert scene.status()["servedRevision"] == first
    assert scene.condition("Available")["status"] == "True"
    scene.sources.release()
    status = scene.wait_until_ready()
    assert status["servedRevision"] != first
    assert "retrainedAt" in status
    scene.cluster.wait_for("one Deployment is left", lambda: len(scene.deployments()) == 1)


def test_a_pin_rolls_back_without_a_job(scene: Scene) -> None:
    scene.apply(scene.build())
    first = scene.wait_until_ready()["servedRevision"]
    scene.apply(scene.build(model={"seed": 1}))
    attempts = scene.wait_until_ready()["attempt"]
    scene.patch(f'{{"spec": {{"pinnedRevision": "{first}"}}}}')
    scene.wait_until_ready()
    assert (scene.status()["servedRevision"], scene.status()["attempt"]) == (first, attempts)


def test_a_changed_id_label_is_restored(scene: Scene) -> None:
    scene.apply(scene.build())
    scene.cluster.wait_for("it has an id", lambda: "classifierID" in scene.status())
    drawn = scene.status()["classifierID"]
    scene.kubectl("label", "clf", "colours", "ocelli.dev/classifier-id=cats_1", "--overwrite")
    scene.cluster.wait_for("the label is back", lambda: scene.get()["metadata"]["labels"]["ocelli.dev/classifier-id"] == drawn)


def test_the_newer_of_two_objects_with_one_id_gets_another_id(scene: Scene) -> None:
    first = scene.build("first")
    first["metadata"]["labels"] = {"ocelli.dev/classifier-id": "cats_1"}
    scene.apply(first)
    scene.cluster.wait_for("the first has its id", lambda: scene.status("first").get("classifierID") == "cats_1")
    second = scene.build("second")
    second["metadata"]["labels"] = {"ocelli.dev/classifier-id": "cats_1"}
    scene.apply(second)
    scene.cluster.wait_for("the second has an id", lambda: scene.status("second").get("classifierID"))
    assert scene.status("second")["classifierID"] != "cats_1"


def test_a_deleted_classifier_leaves_nothing(scene: Scene) -> None:
    scene.apply(scene.build())
    scene.wait_until_ready()
    assert scene.stored()
    scene.kubectl("delete", "clf", "colours", "--wait")
    scene.cluster.wait_for("its stored data is deleted", lambda: not scene.stored())
    scene.cluster.wait_for("its children are gone", lambda: not scene.deployments() and not scene.jobs())


def test_data_of_a_classifier_deleted_without_an_operator_is_swept_by_age(scene: Scene, operator: OperatorProcess) -> None:
    scene.apply(scene.build())
    scene.wait_until_ready()
    operator.stop()
    scene.kubectl("delete", "clf", "colours", "--wait")
    assert scene.stored()
    operator.environment["OCELLI_SWEEP_MINIMUM_AGE_SECONDS"] = "0"
    # No Classifier is left, so an administrator has to confirm that all data may be deleted.
    operator.environment["OCELLI_SWEEP_LIMIT_PERCENT"] = "100"
    operator.start()
    scene.cluster.wait_for("its stored data is deleted", lambda: not scene.stored())
