"""Projections of objects of the API."""

from __future__ import annotations

from typing import Any

import pytest

from ocelli_operator.observed import project_child, project_deployment, project_job, project_pod

METADATA = {
    "namespace": "team-a",
    "name": "dogs-1",
    "uid": "u1",
    "resourceVersion": "1",
    "labels": {"ocelli.dev/classifier": "dogs", "ocelli.dev/revision": "0123456789", "ocelli.dev/component": "training"},
    "ownerReferences": [{"uid": "owner", "controller": True}],
}


def make_pod(**status: Any) -> dict[str, Any]:
    containers = [{"name": "proxy"}, {"name": "trainer", "resources": {"limits": {"memory": "1Gi"}}}]
    return {"metadata": METADATA, "spec": {"containers": containers}, "status": status}


def test_only_an_unschedulable_pod_has_a_message_of_the_scheduler() -> None:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
    assert project_pod(make_pod(conditions=[condition])).unschedulable == "no node"
    assert project_pod(make_pod(conditions=[{**condition, "reason": "SchedulingGated"}])).unschedulable == ""


@pytest.mark.parametrize("place", ["state", "lastState"])
def test_the_last_termination_is_read_from_a_dead_or_restarting_container(place: str) -> None:
    ended = {"exitCode": 137, "reason": "OOMKilled", "message": "bye"}
    # An injected sidecar comes first.
    sidecar = {"name": "proxy", "state": {"terminated": {"exitCode": 1, "message": "no proxy"}}}
    pod = project_pod(make_pod(containerStatuses=[sidecar, {"name": "trainer", place: {"terminated": ended}}]))
    assert (pod.exit_code, pod.exit_reason, pod.termination_message, pod.memory_limit) == (137, "OOMKilled", "bye", "1Gi")


def test_a_starting_container_does_not_count_as_waiting() -> None:
    assert (
        project_pod(
            make_pod(containerStatuses=[{"name": "trainer", "state": {"waiting": {"reason": "ContainerCreating"}}}])
        ).waiting
        == ""
    )


def test_an_ended_trainer_with_a_running_sidecar_is_held_open() -> None:
    statuses = [
        {"name": "proxy", "state": {"running": {}}},
        {"name": "trainer", "state": {"terminated": {"exitCode": 0}}},
    ]
    pod = project_pod(make_pod(phase="Running", containerStatuses=statuses))
    assert (pod.held_open, pod.ended, pod.terminal) == (True, True, False)


def test_an_ended_trainer_alone_in_its_pod_is_not_held_open() -> None:
    """A kubelet still reports the phase Running for a moment: a Job deleted then would take the log with it."""
    statuses = [{"name": "trainer", "state": {"terminated": {"exitCode": 0}}}]
    assert not project_pod(make_pod(phase="Running", containerStatuses=statuses)).held_open


def test_the_end_of_a_sidecar_is_not_the_end_of_the_trainer() -> None:
    statuses = [
        {"name": "proxy", "state": {"terminated": {"exitCode": 0}}},
        {"name": "trainer", "state": {"running": {}}},
    ]
    assert not project_pod(make_pod(phase="Running", containerStatuses=statuses)).ended


def test_a_fresh_pod_without_a_status_is_pending() -> None:
    assert (project_pod(make_pod()).phase, project_pod(make_pod()).takes_requests) == ("Pending", False)


@pytest.mark.parametrize(
    ("conditions", "finished", "succeeded"),
    [
        ([], False, False),
        ([{"type": "Complete", "status": "True"}], True, True),
        ([{"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}], True, False),
        # The Job controller sets this while Pods still run.
        ([{"type": "FailureTarget", "status": "True"}], False, False),
    ],
)
def test_a_job_is_finished_when_none_of_its_pods_runs(
    conditions: list[dict[str, str]], finished: bool, succeeded: bool
) -> None:
    job = project_job({"metadata": METADATA, "status": {"conditions": conditions}})
    assert (job.finished, job.succeeded) == (finished, succeeded)


def make_deployment(**status: Any) -> dict[str, Any]:
    progressing = {"type": "Progressing", "reason": "NewReplicaSetAvailable", "status": "True"}
    healthy = {
        "observedGeneration": 2,
        "replicas": 2,
        "updatedReplicas": 2,
        "availableReplicas": 2,
        "conditions": [progressing],
    }
    return {"metadata": {**METADATA, "generation": 2}, "spec": {"replicas": 2}, "status": {**healthy, **status}}


@pytest.mark.parametrize(
    ("status", "available"),
    [
        ({}, True),
        ({"observedGeneration": 1}, False),
        ({"availableReplicas": 1}, False),
        ({"updatedReplicas": 1}, False),
        ({"replicas": 3}, False),
        ({"conditions": []}, False),
    ],
)
def test_a_deployment_is_available_when_every_replica_is_new_and_ready(status: dict[str, Any], available: bool) -> None:
    assert project_deployment(make_deployment(**status)).available is available


LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
REFUSED = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: team"}


@pytest.mark.parametrize(
    ("status", "exceeded"),
    [
        ({"conditions": [LATE]}, True),
        ({"conditions": [LATE, REFUSED]}, False),
        # The quota was raised a moment ago, and the controller has not counted the first Pod.
        ({"conditions": [LATE], "replicas": 0, "updatedReplicas": 0}, False),
        ({"conditions": [LATE], "replicas": 1, "updatedReplicas": 1}, False),
    ],
)
def test_a_deadline_counts_only_if_pods_could_be_created(status: dict[str, Any], exceeded: bool) -> None:
    assert project_deployment(make_deployment(**status)).deadline_exceeded is exceeded


def test_the_refusal_of_pods_is_read_from_a_deployment() -> None:
    assert project_deployment(make_deployment(conditions=[REFUSED])).pod_refusal == "exceeded quota: team"
    assert project_deployment(make_deployment(conditions=[{**REFUSED, "status": "False"}])).pod_refusal == ""


def test_the_chosen_accelerator_is_read_from_a_deployment() -> None:
    manifest = make_deployment()
    metadata = {**METADATA, "labels": {"ocelli.dev/accelerator": "GPU"}, "annotations": {"ocelli.dev/placement-hash": "ab"}}
    chosen = project_deployment({**manifest, "metadata": metadata})
    assert (chosen.accelerator, chosen.placement_hash) == ("GPU", "ab")
    assert project_deployment(manifest).accelerator is None


def test_a_dead_server_does_not_make_a_deployment_incomplete() -> None:
    assert project_deployment(make_deployment(availableReplicas=1)).complete


@pytest.mark.parametrize(
    ("observed", "desired", "matches"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({}, {"a": 1}, False),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({"cpu": "1"}, {"cpu": "1000m"}, True),
        ({"cpu": "1"}, {"cpu": 1}, True),
        ({"memory": "1Gi"}, {"memory": "1024Mi"}, True),
        ({"memory": "1Gi"}, {"memory": "1G"}, False),
    ],
)
def test_a_child_matches_when_every_desired_field_is_as_desired(
    observed: dict[str, Any], desired: dict[str, Any], matches: bool
) -> None:
    child = project_child({"metadata": METADATA, "spec": observed})
    assert child.matches({"metadata": {"labels": {}}, "spec": desired}) is matches
