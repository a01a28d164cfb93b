"""What a Classifier does and reports while Kueue keeps its training Job suspended."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from ocelli_api.classifier import Manifest, parse_spec
from ocelli_api.conditions import ConditionType, ReadyReason, TrainedReason
from ocelli_api.pods import Component
from ocelli_api.revision import spec_revision, training_hash
from ocelli_cluster.client import ApiError, ForbiddenError, Listing, NotFoundError
from ocelli_cluster.resources import Resource
from ocelli_operator.actions import DeleteChild, StartTraining
from ocelli_operator.kueue import KueueAdmission, KueueState, describe_admission, parse_admission
from ocelli_operator.kueue_workloads import observe_admission
from ocelli_operator.learning import QUEUE_FIRST_POLL_SECONDS, REFUSED_POLL_SECONDS
from ocelli_operator.observed import ObservedJob
from tests.unit.operator.factories import NOW, World, find_applied, make_job, make_pod, make_spec, message_of

QUEUED = {"queueName": "gpus"}
NO_QUOTA = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor a100, 1 more needed"
PENDING = KueueAdmission(state=KueueState.WAITING, message=NO_QUOTA)


def make_workload(*conditions: tuple[str, str, str, str], **parts: Any) -> Manifest:
    """Conditions are type, status, reason and message."""
    fields = ("type", "status", "reason", "message")
    status = {"conditions": [dict(zip(fields, condition, strict=True)) for condition in conditions], **parts.pop("status", {})}
    return {"metadata": {"name": "job-dogs-1a2b3"}, "spec": {}, "status": status, **parts}


def make_queued(world: World, age_seconds: float = 600, **fields: Any) -> ObservedJob:
    created_at = (NOW - timedelta(seconds=age_seconds)).isoformat()
    values = {"suspended": True, "queue": "gpus", "created_at": created_at, **fields}
    return make_job(world.observed.classifier, **values)


def queued_world(admission: KueueAdmission | None = PENDING, **fields: Any) -> World:
    """A Classifier whose training Job waits in a queue."""
    world = World(training=QUEUED)
    world.step()
    world.see(jobs=(make_queued(world, **fields),), admission=admission)
    return world


def find_started(world: World) -> list[StartTraining]:
    return [action for action in world.plan().actions if isinstance(action, StartTraining)]


def test_the_job_is_created_suspended_with_kueues_label() -> None:
    (start,) = find_started(World(training=QUEUED))
    assert start.manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert start.manifest["spec"]["suspend"] is True
    assert "kueue.x-k8s.io/queue-name" not in start.manifest["spec"]["template"]["metadata"]["labels"]


def test_without_a_queue_the_job_says_nothing_about_kueue() -> None:
    (start,) = find_started(World())
    assert "suspend" not in start.manifest["spec"]
    assert "kueue.x-k8s.io/queue-name" not in start.manifest["metadata"]["labels"]


def test_a_waiting_job_has_no_deadline_of_its_own() -> None:
    (start,) = find_started(World(training={**QUEUED, "activeDeadlineSeconds": 600}))
    assert "activeDeadlineSeconds" not in start.manifest["spec"]
    assert start.manifest["spec"]["template"]["spec"]["activeDeadlineSeconds"] == 600


def test_the_queue_is_not_part_of_the_revision() -> None:
    assert spec_revision(parse_spec(make_spec(training=QUEUED))) == spec_revision(parse_spec(make_spec()))


def test_a_classifier_without_a_queue_keeps_its_training_hash() -> None:
    assert training_hash(parse_spec(make_spec()).training) == "c0d775eac7"


def test_a_suspended_job_is_queued_with_kueues_message() -> None:
    world = queued_world()
    plan = world.step()
    trained = plan.status.condition(ConditionType.TRAINED)
    assert trained is not None
    assert trained.reason == TrainedReason.QUEUED
    assert trained.message.endswith(f'waits in queue "gpus" of Kueue: {NO_QUOTA}')


def test_a_suspended_job_is_neither_a_failure_nor_ready() -> None:
    plan = queued_world(age_seconds=30 * 24 * 3600).step()
    ready = plan.status.condition(ConditionType.READY)
    assert ready is not None
    assert ready.reason == ReadyReason.TRAINING
    assert plan.status.condition(ConditionType.STALLED) is None
    assert plan.status.condition(ConditionType.RECONCILING) is not None


def test_a_job_that_still_waits_writes_nothing() -> None:
    world = queued_world()
    world.step()
    plan = world.step()
    assert not plan.actions
    assert plan.status == world.status


def test_kueues_message_is_read_soon_after_the_start_and_then_rarely() -> None:
    silent = replace(PENDING, message="")
    assert queued_world(silent, age_seconds=1).plan().requeue_after_seconds == QUEUE_FIRST_POLL_SECONDS
    assert queued_world(age_seconds=1).plan().requeue_after_seconds == REFUSED_POLL_SECONDS
    assert queued_world(silent, age_seconds=600).plan().requeue_after_seconds == REFUSED_POLL_SECONDS


def test_another_queue_replaces_a_job_that_waits() -> None:
    world = queued_world()
    world.edit(training={"queueName": "others"})
    (deleted,) = [action for action in world.plan().actions if isinstance(action, DeleteChild)]
    assert "spec.training was changed before its trainer started" in deleted.why


def test_another_queue_leaves_a_running_training_alone() -> None:
    world = queued_world(suspended=False)
    job = world.observed.jobs[0]
    world.see(pods=(make_pod(Component.TRAINING, job.identity.revision),), admission=None)
    world.edit(training={"queueName": "others"})
    assert not world.plan().actions


def test_a_job_that_kueue_changed_is_left_alone() -> None:
    """Kueue adds node selectors and tolerations, and changes `suspend`; Jobs are only compared by the hash of the spec."""
    world = queued_world(suspended=False)
    world.see(admission=None)
    assert not find_applied(world.plan(), cast(Any, "Job"))
    assert not world.plan().actions


def test_a_training_that_kueue_stopped_is_queued_again() -> None:
    world = queued_world(replace(PENDING, message="Preempted to accommodate a workload (UID: 7) due to prioritization"))
    revision = world.observed.jobs[0].identity.revision
    world.see(pods=(make_pod(Component.TRAINING, revision, phase="Failed", exit_code=143),))
    assert "Preempted to accommodate" in message_of(world.step(), ConditionType.TRAINED)
    assert world.status.condition(ConditionType.STALLED) is None


def test_a_job_that_failed_because_it_was_suspended_is_tried_again() -> None:
    world = queued_world(finished=True, failure_reason="PodFailurePolicy")
    revision = world.observed.jobs[0].identity.revision
    world.see(pods=(make_pod(Component.TRAINING, revision, phase="Failed", exit_code=137),))
    plan = world.step()
    assert plan.status.condition(ConditionType.STALLED) is None
    assert [action.attempt for action in find_started(world)] == [2]


@pytest.mark.parametrize(
    ("workload", "message", "remedy"),
    [
        (make_workload(("QuotaReserved", "False", "Pending", NO_QUOTA)), NO_QUOTA, ""),
        (
            make_workload(("QuotaReserved", "False", "Inadmissible", "LocalQueue gpus doesn't exist")),
            "LocalQueue gpus doesn't exist",
            "correct spec.training.queueName",
        ),
        (
            make_workload(("QuotaReserved", "False", "Pending", NO_QUOTA), ("Evicted", "True", "Preempted", "Preempted to …")),
            NO_QUOTA,
            "",
        ),
        (
            make_workload(("Evicted", "True", "Deactivated", "The workload is deactivated"), spec={"active": False}),
            "The workload is deactivated",
            "set spec.active of Workload job-dogs-1a2b3 to true",
        ),
        (
            make_workload(
                ("QuotaReserved", "True", "QuotaReserved", "Quota reserved in ClusterQueue a"),
                status={"admissionChecks": [{"name": "nodes", "state": "Pending", "message": "no nodes yet"}]},
            ),
            "admission check nodes: no nodes yet",
            "",
        ),
        (make_workload(), "", ""),
    ],
)
def test_a_workload_says_what_it_waits_for(workload: Manifest, message: str, remedy: str) -> None:
    admission = parse_admission(workload)
    assert admission.message == message or admission.message.endswith(message)
    assert remedy in admission.remedy
    assert bool(remedy) == bool(admission.remedy)


@pytest.mark.parametrize(
    ("admission", "queue", "words"),
    [
        (PENDING, "gpus", f'waits in queue "gpus" of Kueue: {NO_QUOTA}'),
        (PENDING, "", f"waits for Kueue: {NO_QUOTA}"),
        (KueueAdmission(state=KueueState.NO_WORKLOAD), "", "is suspended; set its spec.suspend to false to continue"),
        (KueueAdmission(state=KueueState.NOT_INSTALLED), "gpus", "this cluster has no Kueue; install it"),
        (KueueAdmission(state=KueueState.FORBIDDEN), "gpus", "set the chart's value kueue.enabled"),
        (KueueAdmission(state=KueueState.NO_WORKLOAD), "gpus", "have Kueue manage Jobs of this namespace"),
    ],
)
def test_what_kueue_says_is_worded(admission: KueueAdmission, queue: str, words: str) -> None:
    assert words in describe_admission(admission, queue)


class StandInClient:
    """An API server that answers for each version of Workloads."""

    def __init__(self, **answers: Listing | Exception) -> None:
        self.answers = answers
        self.selectors: list[str] = []

    async def list_objects(self, resource: Resource, namespace: str, label_selector: str) -> Listing:
        self.selectors.append(label_selector)
        answer = self.answers[resource.version]
        if isinstance(answer, Exception):
            raise answer
        return answer


MISSING = NotFoundError(404, "the server could not find the requested resource")
WORKLOAD = Listing(items=(make_workload(("QuotaReserved", "False", "Pending", NO_QUOTA)),), resource_version="1")


@pytest.mark.parametrize(
    ("answers", "state"),
    [
        ({"v1beta2": WORKLOAD}, KueueState.WAITING),
        ({"v1beta2": MISSING, "v1beta1": WORKLOAD}, KueueState.WAITING),
        ({"v1beta2": MISSING, "v1beta1": MISSING}, KueueState.NOT_INSTALLED),
        ({"v1beta2": ForbiddenError(403, "no")}, KueueState.FORBIDDEN),
        ({"v1beta2": Listing(items=(), resource_version="1")}, KueueState.NO_WORKLOAD),
        ({"v1beta2": ApiError(500, "conversion webhook failed")}, KueueState.UNREADABLE),
    ],
)
def test_the_workload_is_found_by_the_jobs_uid(answers: dict[str, Any], state: KueueState) -> None:
    client = StandInClient(**answers)
    admission = asyncio.run(observe_admission(cast(Any, client), "team-a", "uid-7"))
    assert admission.state is state
    assert set(client.selectors) == {"kueue.x-k8s.io/job-uid=uid-7"}
