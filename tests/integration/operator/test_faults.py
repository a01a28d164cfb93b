"""A fault results in a condition that names the object, the fact and the remedy, and does not affect the served revision."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.operator.operator_process import OperatorProcess
from tests.integration.operator.scene import Scene

pytestmark = pytest.mark.cluster


def find_quota_message(scene: Scene) -> str | None:
    trained = scene.condition("Trained")
    queued = trained.get("reason") == "Queued" and "exceeded quota: none" in trained["message"]
    return str(trained["message"]) if queued else None


@pytest.mark.usefixtures("operator")
def test_a_trainer_that_runs_out_of_memory_is_not_retried_until_it_gets_more(scene: Scene) -> None:
    scene.sources.hold()
    scene.apply(scene.build(training={"resources": {"limits": {"memory": "8Mi"}, "requests": {"memory": "8Mi"}}}))
    stalled = scene.wait_for_condition("Stalled", "TrainingFailed")
    assert "training Job colours-" in stalled["message"]
    assert (
        "ran out of memory at its limit of 8Mi (OOMKilled); raise spec.training.resources.limits.memory" in stalled["message"]
    )
    assert len(scene.pods("training")) == 1
    scene.sources.release()
    scene.patch('{"spec": {"training": {"resources": null}}}')
    assert scene.wait_until_ready()["attempt"] == 2


def test_a_revision_that_cannot_be_rolled_out_leaves_the_old_one_serving(
    scene: Scene, build_operator: Callable[..., OperatorProcess]
) -> None:
    operator = build_operator(OCELLI_ROLLOUT_DEADLINE_SECONDS="6")
    operator.start()
    operator.wait_until_leading()
    scene.apply(scene.build())
    first = scene.wait_until_ready()["servedRevision"]
    scene.apply(scene.build(model={"seed": 1}, serving={"nodeSelector": {"no": "such-node"}}))
    # The served revision should move to such a node, too, and must not fail because of it.
    stalled = scene.wait_for_condition("Stalled", "RolloutFailed")
    assert "no node can take Pod" in stalled["message"]
    assert "change spec.serving" in stalled["message"]
    assert scene.status()["servedRevision"] == first
    assert scene.condition("Available")["status"] == "True"
    scene.cluster.wait_for("the failed Deployment is gone", lambda: scene.names(scene.deployments()) == [f"colours-{first}"])
    scene.apply(scene.build(model={"seed": 1}))
    assert scene.wait_until_ready()["servedRevision"] != first


@pytest.mark.usefixtures("operator")
def test_a_training_job_waits_for_a_quota(scene: Scene) -> None:
    scene.kubectl("create", "quota", "none", "--hard=count/jobs.batch=0")
    scene.cluster.wait_for(
        "the quota is counted", lambda: scene.kubectl("get", "quota", "none", "-o", "jsonpath={.status.hard}") or None
    )
    scene.apply(scene.build())
    message = scene.cluster.wait_for("the quota is reported", lambda: find_quota_message(scene))
    assert "raise the quota, or delete objects that count against it" in message
    assert scene.condition("Stalled") == {}
    scene.kubectl("delete", "quota", "none")
    scene.wait_until_ready()


def hold_pods_back(scene: Scene) -> None:
    scene.kubectl("create", "quota", "no-pods", "--hard=pods=0")
    scene.cluster.wait_for(
        "the quota is counted", lambda: scene.kubectl("get", "quota", "no-pods", "-o", "jsonpath={.status.hard}") or None
    )


@pytest.mark.usefixtures("operator")
def test_a_training_whose_pod_exceeds_a_quota_waits(scene: Scene) -> None:
    hold_pods_back(scene)
    scene.apply(scene.build(training={"activeDeadlineSeconds": 4}))

    def find_message() -> str | None:
        message = str(scene.condition("Ready").get("message"))
        return message if "exceeded quota: no-pods" in message else None

    message = scene.cluster.wait_for("the quota is reported", find_message, timeout_seconds=40)
    assert (
        "waits for quota: exceeded quota: no-pods, requested: pods=1, used: pods=0, limited: pods=0; raise the quota" in message
    )
    assert scene.condition("Stalled") == {}
    assert "error" not in scene.kubectl("get", "events", "--field-selector=reason=ReconcileFailed", "-o", "name")


@pytest.mark.usefixtures("operator")
def test_the_deadline_of_a_training_starts_when_a_node_takes_its_pod(scene: Scene) -> None:
    scene.sources.hold()
    scene.apply(scene.build(training={"nodeSelector": {"test": scene.namespace}, "activeDeadlineSeconds": 2}))
    scene.wait_for_condition("Ready", "Unschedulable")
    (pod,) = scene.pods("training")
    created_at = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    scene.cluster.wait_for(
        "the Pod waits for longer than its deadline", lambda: datetime.now(UTC) - created_at > timedelta(seconds=5)
    )
    assert scene.condition("Ready")["reason"] == "Unschedulable"
    assert scene.condition("Stalled") == {}
    scene.kubectl("label", "node", "--all", f"test={scene.namespace}")
    stalled = scene.wait_for_condition("Stalled", "TrainingFailed")
    assert "timed out after 2 s; raise spec.training.activeDeadlineSeconds" in stalled["message"]
    scene.cluster.wait_for("its Job is gone", lambda: not scene.jobs())
    scene.kubectl("label", "node", "--all", "test-")


def test_a_rollout_whose_pods_a_quota_refuses_outlasts_its_deadline(
    scene: Scene, build_operator: Callable[..., OperatorProcess]
) -> None:
    operator = build_operator(OCELLI_ROLLOUT_DEADLINE_SECONDS="10")
    operator.start()
    operator.wait_until_leading()
    scene.apply(scene.build())
    scene.cluster.wait_for("the training has its Pod", lambda: scene.pods("training"))
    hold_pods_back(scene)

    def find_message() -> str | None:
        message = str(scene.condition("Ready").get("message"))
        return message if "exceeded quota: no-pods" in message else None

    message = scene.cluster.wait_for("the quota is reported", find_message, timeout_seconds=60)
    assert "Deployment colours-" in message

    def is_past_deadline() -> bool:
        conditions = [item for deployment in scene.deployments() for item in deployment["status"].get("conditions", [])]
        return "ProgressDeadlineExceeded" in [item["reason"] for item in conditions]

    scene.cluster.wait_for("the deadline is past", is_past_deadline, timeout_seconds=60)
    passes = 'ocelli_reconciles_total{result="unchanged"}'
    before = operator.metric(passes)
    scene.kubectl("annotate", "clf", "colours", "looked-at=again")
    scene.cluster.wait_for("it was reconciled again", lambda: operator.metric(passes) > before)
    assert scene.condition("Stalled") == {}
    assert operator.metric('ocelli_reconciles_total{result="error"}') == 0
    scene.kubectl("delete", "quota", "no-pods")
    # The controller retries with a growing delay; a change wakes it.
    scene.patch('{"spec": {"serving": {"replicas": 2}}}')
    scene.wait_until_ready()


def test_a_store_that_does_not_answer_is_reported_and_retried(
    scene: Scene, build_operator: Callable[..., OperatorProcess], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("broken-store")
    (folder / "tenants").write_text("a file where a folder should be")
    operator = build_operator(OCELLI_STORE_URL=folder.as_uri())
    operator.start()
    operator.wait_until_leading()
    scene.apply(scene.build())
    scene.cluster.wait_for("an Event reports it", lambda: "ReconcileFailed" in scene.kubectl("get", "events"))
    assert scene.condition("Stalled") == {}
