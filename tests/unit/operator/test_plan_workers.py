"""Trainings with several workers: what status says of them, and whose end decides."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ocelli_api.conditions import ConditionType
from ocelli_api.outcome import ExitCode, OutcomeReason
from ocelli_api.pods import Component
from ocelli_operator.actions import ApplyChild, DeleteChild, StartTraining
from ocelli_operator.manifests.metadata import job_name, network_policy_name, workers_policy_name
from ocelli_operator.observed import ChildKind, ObservedPod, project_job, project_pod
from tests.unit.operator.factories import (
    World,
    find_applied,
    make_job,
    make_outcome,
    make_pod,
    make_settings,
    message_of,
)

TUNED: dict[str, Any] = {"model": {"strategy": "FineTune"}, "training": {"workers": 2}}
PEERS = '[{"podSelector": {}}]'
LOST = int(ExitCode.WORKER_LOST)


class Workers:
    """A Classifier with the Job of two workers."""

    def __init__(self, **job: Any) -> None:
        self.world = World(**TUNED)
        self.world.step()
        self.job = make_job(self.world.observed.classifier, workers=2, **job)
        self.world.see(jobs=(self.job,))

    def pod(self, worker: int, **fields: Any) -> ObservedPod:
        return make_pod(
            Component.TRAINING, self.world.revision, name=f"{self.job.identity.name}-{worker}-x7k2p", worker=worker, **fields
        )

    def outcome(self, reason: OutcomeReason, message: str) -> str:
        return json.dumps(make_outcome(self.world.observed.classifier, reason, message).to_json())

    def see(self, *pods: ObservedPod, **fields: Any) -> None:
        self.world.see(pods=pods, **fields)

    def message(self, condition_type: ConditionType = ConditionType.TRAINED) -> str:
        return message_of(self.world.plan(), condition_type)


def failed(**job: Any) -> Workers:
    return Workers(finished=True, failure_reason="PodFailurePolicy", failure_message="Container failed", **job)


def test_status_says_how_many_workers_run() -> None:
    workers = Workers()
    workers.see(workers.pod(0), workers.pod(1, phase="Pending"))
    assert workers.message().endswith("runs, with 1 of 2 workers")
    workers.see(workers.pod(0), workers.pod(1))
    assert workers.message().endswith("runs")


def test_a_worker_that_a_quota_refuses_is_reported_while_another_one_runs() -> None:
    workers = Workers()
    workers.see(workers.pod(0), pod_refusal="exceeded quota: gpus")
    assert "with 1 of 2 workers; another one waits for quota: exceeded quota: gpus" in workers.message()


def test_an_unschedulable_worker_is_named() -> None:
    workers = Workers()
    workers.see(workers.pod(0), workers.pod(1, phase="Pending", unschedulable="0/3 nodes are available."))
    message = workers.message()
    assert "no node can take the Pod of worker 1: 0/3 nodes are available; " in message
    assert message.endswith("or lower spec.training.workers")


def test_workers_that_ended_with_a_lost_one_do_not_count_as_tries() -> None:
    workers = Workers()
    before = "2026-05-04T11:20:00Z"
    workers.see(
        workers.pod(0, phase="Failed", exit_code=LOST, created_at=before),
        workers.pod(1, phase="Failed", exit_code=1, created_at=before),
        workers.pod(0),
        workers.pod(1),
    )
    assert workers.message().endswith("runs, after 1 that ended unexpectedly")


def test_the_outcome_of_the_first_worker_counts() -> None:
    workers = failed()
    workers.see(
        workers.pod(
            0, phase="Failed", exit_code=64, termination_message=workers.outcome(OutcomeReason.INVALID_DATA, "Too few")
        ),
        workers.pod(1, phase="Failed", exit_code=143, created_at="2026-05-04T11:40:00Z"),
    )
    assert workers.message(ConditionType.STALLED).startswith("Too few")


@pytest.mark.parametrize("first_code", [LOST, 143])
def test_the_outcome_of_another_worker_counts_if_it_ended_the_job(first_code: int) -> None:
    workers = failed()
    lost = workers.outcome(OutcomeReason.FAILED, "worker 1 is lost") if first_code == LOST else ""
    missing = workers.outcome(OutcomeReason.BACKBONE_UNAVAILABLE, "Classifier team-a/dogs, worker 1: PyTorch finds no GPU")
    workers.see(
        workers.pod(0, phase="Failed", exit_code=first_code, termination_message=lost, created_at="2026-05-04T11:40:00Z"),
        workers.pod(1, phase="Failed", exit_code=65, termination_message=missing),
    )
    assert workers.message(ConditionType.STALLED) == "Classifier team-a/dogs, worker 1: PyTorch finds no GPU"


def test_a_worker_that_ran_out_of_memory_is_named() -> None:
    workers = failed()
    workers.see(
        workers.pod(0, phase="Failed", exit_code=143),
        workers.pod(1, phase="Failed", exit_code=137, exit_reason="OOMKilled", memory_limit="4Gi"),
    )
    assert "worker 1 ran out of memory at its limit of 4Gi (OOMKilled); raise" in workers.message(ConditionType.STALLED)


def test_a_worker_that_crashed_is_named_with_its_log() -> None:
    workers = failed()
    workers.see(workers.pod(0, phase="Failed", exit_code=LOST), workers.pod(1, phase="Failed", exit_code=139))
    message = workers.message(ConditionType.STALLED)
    assert "worker 1 ended with exit code 139; read `kubectl logs " in message
    assert f"{workers.job.identity.name}-1-x7k2p`" in message


def test_the_network_policy_exists_before_the_job() -> None:
    world = World(**TUNED)
    world.settings = make_settings(OCELLI_INFERENCE_PEERS=PEERS)
    first = world.step()
    assert [type(action) for action in first.actions] == [ApplyChild]
    assert message_of(first, ConditionType.TRAINED) == "NetworkPolicy clf-dogs.workers is created before the workers"
    (policy,) = find_applied(first, ChildKind.NETWORK_POLICY)
    (peer,) = policy["spec"]["ingress"][0]["from"]
    assert peer["podSelector"] == policy["spec"]["podSelector"]
    second = world.step()
    assert [type(action) for action in second.actions] == [StartTraining]


def test_one_worker_needs_no_network_policy_and_removes_that_of_several() -> None:
    world = World(**TUNED)
    world.settings = make_settings(OCELLI_INFERENCE_PEERS=PEERS)
    world.step()
    world.edit(model={"strategy": "FineTune"})
    actions = world.plan().actions
    deleted = [action.identity.name for action in actions if isinstance(action, DeleteChild)]
    assert deleted == ["clf-dogs.workers"]
    assert any(isinstance(action, StartTraining) for action in actions)


def test_an_invalid_network_policy_is_not_sent_again() -> None:
    world = World(**TUNED)
    world.settings = make_settings(OCELLI_INFERENCE_PEERS=PEERS)
    (action,) = world.plan().actions
    assert isinstance(action, ApplyChild)
    world.refuse(action.manifest_hash, "no", invalid=True)
    plan = world.plan()
    assert plan.actions == ()
    assert "the API server rejects it as invalid: no" in message_of(plan, ConditionType.TRAINED)


def test_workers_wait_while_their_network_policy_is_being_deleted() -> None:
    world = World(**TUNED)
    world.settings = make_settings(OCELLI_INFERENCE_PEERS=PEERS)
    world.step()
    (policy,) = world.observed.network_policies
    world.see(network_policies=(replace(policy, identity=replace(policy.identity, deleting=True)),))
    plan = world.plan()
    assert plan.actions == ()
    assert message_of(plan, ConditionType.TRAINED).endswith("is being deleted; it is recreated after that")


def test_the_network_policy_of_workers_has_the_name_of_no_other() -> None:
    assert workers_policy_name("dogs") != network_policy_name("dogs-workers")


def test_without_network_policies_workers_start_at_once() -> None:
    assert [type(action) for action in World(**TUNED).plan().actions] == [StartTraining]


def test_a_job_and_its_pods_are_read_with_their_workers() -> None:
    name = job_name("dogs", "0123456789", 1, workers=2)
    metadata = {"namespace": "team-a", "name": name, "labels": {}}
    assert project_job({"metadata": metadata, "spec": {"completions": 2}}).workers == 2
    numbered = {**metadata, "annotations": {"batch.kubernetes.io/job-completion-index": "1"}}
    assert project_pod({"metadata": numbered, "spec": {"containers": []}}).worker == 1
