"""Checks before a training: which Job comes first, what status says while trainings are suspended, and what resumes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ocelli_api.conditions import ConditionType
from ocelli_api.lifecycle import Lifecycle, lifecycle
from ocelli_api.outcome import Outcome, OutcomeReason, ProgressReport, Stage
from ocelli_api.pods import STEP_LABEL, Component, Environment, TrainingStep
from ocelli_operator.actions import DeleteChild, StartTraining
from ocelli_operator.manifests.metadata import job_name
from ocelli_operator.observed import GpuNode, ObservedJob, ObservedPod, StartKind
from ocelli_operator.plan import Plan
from ocelli_operator.references import find_revisions
from ocelli_operator.status import find_occurrences
from tests.unit.operator.factories import (
    NOW,
    World,
    make_identity,
    make_job,
    make_outcome,
    make_pod,
    make_settings,
    message_of,
    settled_world,
)

FOUND = 'every source was read: 24 different images ("cat" 12, "dog" 12)'
GPU_NODE = GpuNode(labels={}, taints=())
PRETRAINED = {"classes": None, "pretrained": {"weights": {"packaged": "OpenNSFW"}}}


def reason_of(plan: Plan, condition_type: ConditionType) -> str | None:
    condition = plan.status.condition(condition_type)
    return None if condition is None else f"{condition.status}/{condition.reason}"


def start_of(plan: Plan) -> StartTraining | None:
    return next((action for action in plan.actions if isinstance(action, StartTraining)), None)


def gpu_world(**spec: Any) -> World:
    world = World(**spec)
    world.settings = make_settings(OCELLI_TRAINER_GPU_IMAGE="trainer-gpu")
    world.see(gpu_nodes=(GPU_NODE,))
    return world


def check_job(world: World, **fields: Any) -> ObservedJob:
    name = job_name("dogs", world.revision, world.status.attempt, TrainingStep.CHECK)
    values: dict[str, Any] = {"identity": make_identity(name, world.revision), "step": TrainingStep.CHECK, **fields}
    return make_job(world.observed.classifier, world.status.attempt, **values)


def check_pod(world: World, **fields: Any) -> ObservedPod:
    pod = make_pod(Component.TRAINING, world.revision, attempt=world.status.attempt, step=TrainingStep.CHECK, **fields)
    name = job_name("dogs", world.revision, world.status.attempt, TrainingStep.CHECK)
    return replace(pod, identity=replace(pod.identity, owner_uid=f"uid-{name}", owner_name=name))


def checked(world: World, reason: OutcomeReason = OutcomeReason.SUCCEEDED, message: str = FOUND) -> Outcome:
    return make_outcome(world.observed.classifier, reason, message, world.status.attempt)


def suspended_world(**spec: Any) -> World:
    """Its check has succeeded, and nothing is left to do."""
    world = World(suspend=True, **spec)
    world.step()
    world.see(check=checked(world))
    world.settle()
    return world


class TestSuspended:
    def test_only_the_check_starts(self) -> None:
        start = start_of(World(suspend=True).plan())
        assert start is not None
        assert start.step is TrainingStep.CHECK
        assert start.manifest["metadata"]["name"].endswith("-1-check")
        assert start.manifest["metadata"]["labels"][STEP_LABEL] == "Check"

    @pytest.mark.parametrize(
        "training",
        [
            {"accelerator": "GPU"},
            {"resources": {"limits": {"nvidia.com/gpu": "2", "memory": "4Gi"}}},
            {"resources": {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 1}}},
            {},
        ],
        ids=["GPU", "limits", "both", "Auto with a GPU node"],
    )
    def test_the_check_requests_no_gpu(self, training: dict[str, Any]) -> None:
        start = start_of(gpu_world(suspend=True, training=training).plan())
        assert start is not None
        assert "gpu" not in str(start.manifest["spec"]["template"]["spec"]).replace("trainer-gpu", "!gpu").lower()

    def test_the_check_keeps_other_resources(self) -> None:
        limits = {"nvidia.com/gpu": "2", "memory": "4Gi"}
        start = start_of(gpu_world(suspend=True, training={"resources": {"limits": limits}}).plan())
        assert start is not None
        (container,) = start.manifest["spec"]["template"]["spec"]["containers"]
        assert container["resources"] == {"limits": {"memory": "4Gi"}}
        assert {"name": Environment.STEP, "value": "Check"} in container["env"]

    def test_status_says_that_the_check_is_in_progress(self) -> None:
        world = World(suspend=True)
        world.step()
        world.see(jobs=(check_job(world),), pods=(check_pod(world),))
        plan = world.plan()
        assert reason_of(plan, ConditionType.TRAINED) == "False/CheckingData"
        assert reason_of(plan, ConditionType.READY) == "False/CheckingData"
        assert reason_of(plan, ConditionType.RECONCILING) == "True/CheckingData"
        assert "check Job dogs-" in message_of(plan, ConditionType.READY)

    def test_status_says_what_was_found_and_that_nothing_happens(self) -> None:
        plan = suspended_world().plan()
        assert reason_of(plan, ConditionType.DATA_VALID) == "True/Checked"
        assert message_of(plan, ConditionType.DATA_VALID) == FOUND
        assert reason_of(plan, ConditionType.TRAINED) == "False/Suspended"
        assert reason_of(plan, ConditionType.READY) == "False/Suspended"
        assert reason_of(plan, ConditionType.RECONCILING) is None
        assert reason_of(plan, ConditionType.STALLED) is None
        assert "set spec.suspend to false" in message_of(plan, ConditionType.READY)

    def test_nothing_is_written_without_a_change(self) -> None:
        world = suspended_world()
        plan = world.plan()
        assert (plan.actions, plan.status, plan.requeue_after_seconds) == ((), world.status, None)

    def test_nothing_is_written_while_the_store_does_not_answer(self) -> None:
        world = suspended_world()
        world.see(check=None, store_error="the object store is not reachable")
        plan = world.plan()
        assert (plan.actions, plan.status) == ((), world.status)

    def test_the_end_of_the_check_is_reported_by_events(self) -> None:
        world = World(suspend=True)
        world.step()
        before = world.status
        world.see(check=checked(world))
        occurrences = find_occurrences(before, world.plan().status)
        assert [(item.reason, item.type) for item in occurrences] == [("Checked", "Normal"), ("Suspended", "Normal")]
        assert occurrences[0].note == FOUND

    def test_v3_shows_a_training_that_waits(self) -> None:
        assert lifecycle(suspended_world().observed.classifier) is Lifecycle.TRAINING

    def test_its_documents_are_kept(self) -> None:
        world = suspended_world()
        assert world.status.training_revision == world.revision
        assert world.revision in find_revisions(world.observed.classifier)

    def test_no_progress_is_shown_afterwards(self) -> None:
        world = World(suspend=True)
        world.step()
        world.see(jobs=(check_job(world),), pods=(check_pod(world),))
        world.see(progress=ProgressReport(stage=Stage.CHECKING, percent=35, data_valid=False))
        assert world.step().status.progress is not None
        world.see(jobs=(check_job(world, finished=True, succeeded=True),), pods=(), check=checked(world))
        assert world.step().status.progress is None

    def test_a_check_that_left_only_a_termination_message_counts(self) -> None:
        world = World(suspend=True)
        world.step()
        pod = check_pod(world, phase="Succeeded", exit_code=0, termination_message=checked(world).to_termination_message())
        world.see(jobs=(check_job(world, finished=True, succeeded=True),), pods=(pod,))
        assert reason_of(world.plan(), ConditionType.READY) == "False/Suspended"

    def test_a_check_whose_result_is_lost_needs_a_person(self) -> None:
        world = World(suspend=True)
        world.step()
        world.see(jobs=(check_job(world, finished=True, succeeded=True),))
        plan = world.plan()
        assert reason_of(plan, ConditionType.STALLED) == "True/TrainingFailed"
        assert "its result is not stored; raise spec.retrainNonce to check again" in message_of(plan, ConditionType.STALLED)

    def test_an_outcome_of_another_attempt_is_not_believed(self) -> None:
        world = World(suspend=True)
        world.step()
        world.see(check=replace(checked(world), attempt=7))
        start = start_of(world.plan())
        assert start is not None
        assert start.step is TrainingStep.CHECK

    def test_a_training_in_progress_is_stopped(self) -> None:
        world = World()
        world.step()
        world.see(jobs=(make_job(world.observed.classifier),))
        world.edit(suspend=True)
        plan = world.plan()
        (deletion,) = [action for action in plan.actions if isinstance(action, DeleteChild)]
        assert deletion.why == "spec.suspend is true"
        assert start_of(plan) is None

    def test_a_training_that_is_being_stopped_is_followed_by_the_check(self) -> None:
        world = World()
        world.step()
        job = make_job(world.observed.classifier)
        world.edit(suspend=True)
        world.see(jobs=(replace(job, identity=replace(job.identity, deleting=True)),))
        assert message_of(world.plan(), ConditionType.TRAINED).endswith("is being deleted; the check of its data follows")

    def test_the_check_waits_until_the_stopped_trainer_has_ended(self) -> None:
        world = World()
        world.step()
        world.see(pods=(make_pod(Component.TRAINING, world.revision),))
        world.edit(suspend=True)
        plan = world.plan()
        assert start_of(plan) is None
        assert "waits until Pod" in message_of(plan, ConditionType.TRAINED)

    def test_the_served_revision_serves_on(self) -> None:
        world = settled_world()
        old = world.status.served_revision
        world.edit(suspend=True, model={"seed": 1})
        world.step()
        world.see(check=checked(world))
        world.settle()
        plan = world.plan()
        assert plan.status.served_revision == old
        assert reason_of(plan, ConditionType.AVAILABLE) == "True/Serving"
        assert reason_of(plan, ConditionType.READY) == "False/Suspended"
        assert lifecycle(world.observed.classifier) is Lifecycle.RETRAINING

    def test_a_trained_revision_is_ready(self) -> None:
        world = settled_world()
        artifact = world.observed.artifact
        world.edit(suspend=True)
        world.see(artifact=artifact)
        world.settle()
        plan = world.plan()
        assert reason_of(plan, ConditionType.READY) == "True/Served"
        assert start_of(plan) is None

    def test_a_pretrained_classifier_is_not_prepared(self) -> None:
        world = World(suspend=True, **PRETRAINED)
        world.settle()
        plan = world.plan()
        assert start_of(plan) is None
        assert reason_of(plan, ConditionType.READY) == "False/Suspended"
        assert reason_of(plan, ConditionType.DATA_VALID) == "Unknown/NotChecked"

    def test_adoption_announces_the_check(self) -> None:
        world = World(suspend=True)
        classifier = replace(world.observed.classifier, status=replace(world.status, classifier_id=None))
        world.see(classifier=classifier, fresh_classifier_id="dogs_20")
        plan = world.plan()
        assert reason_of(plan, ConditionType.READY) == "False/CheckingData"


class TestBadData:
    MESSAGE = 'Classifier team-a/dogs: 2 faults: class "cat" has 3 | class "dog": https://data.test/dog.zip: 404'

    def failed_world(self, **spec: Any) -> World:
        world = World(suspend=True, **spec)
        world.step()
        world.see(check=checked(world, OutcomeReason.INVALID_DATA, self.MESSAGE))
        world.settle()
        return world

    def test_status_says_everything_that_is_wrong(self) -> None:
        plan = self.failed_world().plan()
        for condition_type in (ConditionType.DATA_VALID, ConditionType.READY, ConditionType.STALLED):
            assert message_of(plan, condition_type).startswith(self.MESSAGE)
        assert reason_of(plan, ConditionType.DATA_VALID) == "False/InvalidData"
        assert reason_of(plan, ConditionType.STALLED) == "True/InvalidData"

    def test_v3_shows_that_it_failed(self) -> None:
        assert lifecycle(self.failed_world().observed.classifier) is Lifecycle.FAILED

    def test_nothing_is_written_without_a_change(self) -> None:
        world = self.failed_world()
        plan = world.plan()
        assert (plan.actions, plan.status) == ((), world.status)

    def test_it_is_not_trained_when_suspend_is_taken_back(self) -> None:
        world = self.failed_world()
        world.edit(suspend=False)
        assert start_of(world.plan()) is None

    def test_a_higher_nonce_checks_again(self) -> None:
        world = self.failed_world()
        world.edit(suspend=True, retrainNonce=1)
        start = start_of(world.plan())
        assert start is not None
        assert (start.step, start.attempt) == (TrainingStep.CHECK, 2)

    def test_the_served_revision_serves_on(self) -> None:
        world = settled_world()
        world.edit(suspend=True, model={"seed": 1})
        world.step()
        world.see(check=checked(world, OutcomeReason.SOURCE_UNREADABLE, self.MESSAGE))
        world.settle()
        assert reason_of(world.plan(), ConditionType.AVAILABLE) == "True/Serving"
        assert reason_of(world.plan(), ConditionType.DATA_VALID) == "False/SourceUnreadable"


class TestResumed:
    def test_the_training_of_the_same_attempt_follows(self) -> None:
        world = suspended_world()
        world.edit(suspend=False)
        world.see(check=checked(world))
        start = start_of(world.plan())
        assert start is not None
        assert (start.step, start.attempt) == (TrainingStep.TRAIN, world.status.attempt)

    def test_what_the_check_found_stays_in_status_during_the_training(self) -> None:
        world = suspended_world()
        world.edit(suspend=False)
        world.see(check=checked(world))
        world.step()
        world.see(jobs=(make_job(world.observed.classifier),), check=None)
        world.see(progress=ProgressReport(stage=Stage.READING, percent=1, data_valid=False))
        plan = world.plan()
        assert message_of(plan, ConditionType.DATA_VALID) == FOUND
        assert reason_of(plan, ConditionType.READY) == "False/Training"

    def test_a_check_in_progress_is_not_interrupted(self) -> None:
        world = World(suspend=True)
        world.step()
        world.edit(suspend=False)
        world.see(jobs=(check_job(world),), pods=(check_pod(world),))
        plan = world.plan()
        assert plan.actions == ()
        assert reason_of(plan, ConditionType.TRAINED) == "False/CheckingData"
        assert reason_of(plan, ConditionType.READY) == "False/Training"


class TestBeforeGPUs:
    def test_no_progress_is_shown_while_the_training_waits(self) -> None:
        world = gpu_world(training={"queueName": "gpus"})
        world.step()
        world.see(jobs=(check_job(world),), pods=(check_pod(world),))
        world.see(progress=ProgressReport(stage=Stage.CHECKING, percent=90, data_valid=True))
        assert world.step().status.progress is not None
        world.see(jobs=(check_job(world, finished=True, succeeded=True),), pods=(), check=checked(world))
        world.step()
        world.see(jobs=(make_job(world.observed.classifier, suspended=True, queue="gpus", created_at=NOW.isoformat()),))
        world.see(progress=None, check=None)
        assert world.step().status.progress is None

    def test_a_check_counts_as_a_start_although_its_training_is_queued_by_kueue(self) -> None:
        world = gpu_world(training={"queueName": "gpus"})
        assert world.step().begins == {StartKind.TRAINING}
        world.see(jobs=(check_job(world, finished=True, succeeded=True),), check=checked(world))
        plan = world.plan()
        assert start_of(plan) is not None
        assert plan.begins == frozenset()

    def test_the_check_comes_first(self) -> None:
        start = start_of(gpu_world().plan())
        assert start is not None
        assert start.step is TrainingStep.CHECK

    def test_the_training_requests_a_gpu_once_the_data_is_checked(self) -> None:
        world = gpu_world()
        world.step()
        world.see(check=checked(world))
        start = start_of(world.plan())
        assert start is not None
        assert start.step is TrainingStep.TRAIN
        (container,) = start.manifest["spec"]["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"

    def test_bad_data_requests_no_gpu(self) -> None:
        world = gpu_world()
        world.step()
        world.see(check=checked(world, OutcomeReason.INVALID_DATA, "Classifier team-a/dogs: few"))
        plan = world.plan()
        assert start_of(plan) is None
        assert reason_of(plan, ConditionType.STALLED) == "True/InvalidData"

    def test_status_shows_a_training(self) -> None:
        world = gpu_world()
        world.step()
        world.see(jobs=(check_job(world),), pods=(check_pod(world),))
        plan = world.plan()
        assert reason_of(plan, ConditionType.TRAINED) == "False/CheckingData"
        assert reason_of(plan, ConditionType.READY) == "False/Training"
        assert reason_of(plan, ConditionType.RECONCILING) == "True/Training"

    def test_one_job_does_both_without_a_gpu(self) -> None:
        start = start_of(World().plan())
        assert start is not None
        assert start.step is TrainingStep.TRAIN

    def test_weights_are_prepared_without_a_check(self) -> None:
        start = start_of(gpu_world(training={"accelerator": "GPU"}, **PRETRAINED).plan())
        assert start is not None
        assert start.step is TrainingStep.TRAIN

    def test_a_gpu_that_is_not_offered_fails_before_the_check(self) -> None:
        plan = World(training={"accelerator": "GPU"}).plan()
        assert start_of(plan) is None
        assert reason_of(plan, ConditionType.STALLED) == "True/GPUNotOffered"

    def test_a_lost_artifact_is_checked_again(self) -> None:
        world = gpu_world()
        world.step()
        world.see(check=checked(world), outcome=checked(world))
        start = start_of(world.plan())
        assert start is not None
        assert (start.step, start.attempt) == (TrainingStep.CHECK, 2)

    def test_a_check_whose_pod_a_sidecar_keeps_running_is_deleted(self) -> None:
        world = gpu_world()
        world.step()
        pod = check_pod(world, held_open=True, termination_message=checked(world).to_termination_message())
        world.see(jobs=(check_job(world),), pods=(pod,))
        plan = world.plan()
        start = start_of(plan)
        assert start is not None
        assert start.step is TrainingStep.TRAIN
        assert [action.identity.name for action in plan.actions if isinstance(action, DeleteChild)] == [pod.identity.owner_name]
