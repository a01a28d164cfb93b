"""Is the current revision trained? Every reason of `Trained`, `DataValid` and `Stalled` is reached here."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from ocelli_api.classifier import CLASSIFIER_ID_LABEL
from ocelli_api.classifier_status import ClassifierStatus, FineTuningProgress
from ocelli_api.conditions import ConditionStatus, ConditionType
from ocelli_api.lifecycle import Lifecycle, lifecycle
from ocelli_api.outcome import OutcomeReason, ProgressReport, Stage, TuningProgress
from ocelli_api.pods import Component
from ocelli_api.revision import current_revision
from ocelli_operator.actions import DeleteChild, DropExamples, RestoreLabel, StartTraining
from ocelli_operator.memory import Memory
from ocelli_operator.observed import ChildKind, Observed, ObservedJob, ObservedPod
from ocelli_operator.plan import LABEL_DELAY_SECONDS, Plan, plan_classifier
from tests.unit.operator.factories import (
    NOW,
    World,
    make_classifier,
    make_identity,
    make_job,
    make_outcome,
    make_pod,
    make_settings,
    message_of,
    settled_world,
)


def condition_of(plan: Plan, condition_type: ConditionType) -> tuple[str, str] | None:
    condition = plan.status.condition(condition_type)
    return None if condition is None else (str(condition.status), condition.reason)


def starts_of(plan: Plan) -> list[tuple[str, int]]:
    return [(action.revision, action.attempt) for action in plan.actions if isinstance(action, StartTraining)]


def deleted_jobs(plan: Plan) -> list[str]:
    return [action.identity.name for action in plan.actions if isinstance(action, DeleteChild) and action.kind is ChildKind.JOB]


def world_in_training(**fields: object) -> World:
    """One whose first Job was created."""
    world = World(**fields)
    world.step()
    world.see(jobs=(make_job(world.observed.classifier),))
    return world


class TestAdoption:
    def observe(self, labels: dict[str, str], *, taken: bool = False) -> Observed:
        classifier = make_classifier(ClassifierStatus(), labels=labels)
        return Observed(classifier=classifier, now=NOW, fresh_classifier_id="dogs_77", id_taken=taken)

    def test_a_classifier_without_an_id_gets_one(self) -> None:
        assert plan_classifier(self.observe({}), make_settings()).status.classifier_id == "dogs_77"

    def test_the_id_in_the_label_is_kept(self) -> None:
        observed = self.observe({CLASSIFIER_ID_LABEL: "birds_5"})
        assert plan_classifier(observed, make_settings()).status.classifier_id == "birds_5"

    def test_an_id_that_an_older_object_has_is_not_taken_over(self) -> None:
        observed = self.observe({CLASSIFIER_ID_LABEL: "birds_5"}, taken=True)
        assert plan_classifier(observed, make_settings()).status.classifier_id == "dogs_77"

    def test_a_label_that_is_not_an_id_is_replaced(self) -> None:
        observed = self.observe({CLASSIFIER_ID_LABEL: "not-an-id"})
        assert plan_classifier(observed, make_settings()).status.classifier_id == "dogs_77"

    def test_nothing_is_created_before_the_id_is_written(self) -> None:
        plan = plan_classifier(self.observe({}), make_settings())
        assert (plan.actions, plan.requeue_after_seconds) == ((), 0.0)

    def test_a_changed_label_is_restored(self) -> None:
        world = settled_world()
        world.see(classifier=replace(world.observed.classifier, labels={CLASSIFIER_ID_LABEL: "cats_1"}))
        assert world.plan().actions == (RestoreLabel(classifier_id="dogs_19"),)

    def test_restoring_a_label_is_the_only_write_of_its_reconcile(self) -> None:
        world = settled_world()
        world.edit(serving={"replicas": 2})
        world.see(classifier=replace(world.observed.classifier, labels={}))
        plan = world.plan()
        assert plan.actions == (RestoreLabel(classifier_id="dogs_19"),)
        assert (plan.status, plan.requeue_after_seconds) == (world.status, LABEL_DELAY_SECONDS)


def test_a_new_classifier_gets_a_job() -> None:
    world = World()
    plan = world.plan()
    assert starts_of(plan) == [(world.revision, 1)]
    assert (plan.status.training_revision, plan.status.attempt) == (world.revision, 1)


def test_a_job_that_exists_is_not_created_again_after_its_status_write_was_lost() -> None:
    world = World()
    world.see(jobs=(make_job(world.observed.classifier),))
    plan = world.plan()
    assert starts_of(plan) == []
    assert (plan.status.training_revision, plan.status.attempt) == (world.revision, 1)


def test_no_job_starts_if_the_artifact_is_stored() -> None:
    world = World()
    world.learn()
    plan = world.plan()
    assert starts_of(plan) == []
    assert condition_of(plan, ConditionType.TRAINED) == ("True", "ArtifactStored")


def test_a_deleted_job_is_recreated_under_its_name() -> None:
    world = world_in_training()
    world.step()
    world.see(jobs=())
    assert starts_of(world.plan()) == [(world.revision, 1)]


def test_no_second_trainer_of_a_revision_starts_while_one_runs() -> None:
    world = world_in_training()
    world.step()
    world.see(jobs=(), pods=(make_pod(Component.TRAINING, world.revision),))
    plan = world.plan()
    assert starts_of(plan) == []
    assert "of an earlier attempt ends" in message_of(plan, ConditionType.TRAINED)


def test_a_job_of_an_earlier_object_of_the_name_is_waited_for() -> None:
    world = World()
    job = make_job(world.observed.classifier)
    foreign = replace(job, identity=replace(job.identity, owner_uid="uid-of-the-earlier-one"))
    world.see(jobs=(foreign,))
    plan = world.plan()
    assert plan.actions == ()
    assert "belongs to an earlier Classifier of this name" in message_of(plan, ConditionType.TRAINED)
    assert condition_of(plan, ConditionType.STALLED) is None


def test_a_foreign_job_with_the_name_is_kept_and_reported_with_a_remedy() -> None:
    world = World()
    job = make_job(world.observed.classifier)
    world.see(jobs=(replace(job, identity=replace(job.identity, owner_uid="", owner_kind="")),))
    plan = world.plan()
    assert plan.actions == ()
    assert condition_of(plan, ConditionType.TRAINED) == ("False", "Queued")
    assert "does not belong to this Classifier; delete it" in message_of(plan, ConditionType.READY)


def test_a_foreign_job_of_another_revision_is_kept() -> None:
    world = world_in_training()
    foreign = make_job(world.observed.classifier, revision="0123456789")
    foreign = replace(foreign, identity=replace(foreign.identity, owner_uid="uid-of-another"))
    world.see(jobs=(*world.observed.jobs, foreign))
    assert deleted_jobs(world.plan()) == []


@pytest.mark.parametrize("owner", [("", ""), ("Job", "my-copy"), ("ReplicaSet", "dogs-5d4f8c")])
def test_a_pod_with_copied_labels_does_not_keep_a_training_from_starting(owner: tuple[str, str]) -> None:
    world = World()
    identity = make_identity("copy", world.revision, owner_uid="uid-of-another", owner=owner)
    world.see(pods=(make_pod(Component.TRAINING, world.revision, identity=identity),))
    assert starts_of(world.plan()) == [(world.revision, 1)]


def test_a_pod_with_copied_labels_does_not_count_as_the_trainer() -> None:
    world = world_in_training()
    identity = make_identity("copy", world.revision, owner_uid="uid-of-another", owner=("Job", "my-copy"))
    world.see(pods=(make_pod(Component.TRAINING, world.revision, identity=identity),))
    assert condition_of(world.plan(), ConditionType.TRAINED) == ("False", "Queued")


class TestRefusedPod:
    """The Job exists, and Kubernetes refuses to create its Pod."""

    QUOTA = (
        'Error creating: pods "dogs-1-x7f2k" is forbidden: '
        "exceeded quota: team, requested: pods=1, used: pods=3, limited: pods=3"
    )

    def test_an_exceeded_quota_is_quoted_with_a_remedy(self) -> None:
        world = world_in_training()
        world.see(pod_refusal=self.QUOTA)
        plan = world.plan()
        assert message_of(plan, ConditionType.READY).endswith(
            "-1 waits for quota: exceeded quota: team, requested: pods=1, used: pods=3, limited: pods=3; "
            "raise the quota, or delete objects that count against it"
        )
        assert condition_of(plan, ConditionType.STALLED) is None

    def test_a_webhook_is_quoted(self) -> None:
        world = world_in_training()
        world.see(pod_refusal='Error creating: admission webhook "no.test" denied the request: not today')
        message = message_of(world.plan(), ConditionType.READY)
        assert (
            '-1 waits for admission: admission webhook "no.test" denied the request: not today; have the policy allow it'
            in message
        )

    def test_it_is_reconciled_again_without_a_change(self) -> None:
        world = world_in_training()
        world.see(pod_refusal=self.QUOTA)
        assert world.plan().requeue_after_seconds == 30.0

    def test_an_existing_pod_overrides_the_refusal(self) -> None:
        world = world_in_training()
        world.see(pod_refusal=self.QUOTA, pods=(make_pod(Component.TRAINING, world.revision),))
        assert condition_of(world.plan(), ConditionType.TRAINED) == ("False", "Training")


class TestSidecar:
    """An injected container continues after the trainer has ended, so that its Pod and its Job never end."""

    def world(self, **pod: object) -> World:
        world = world_in_training()
        world.step()
        world.see(pods=(make_pod(Component.TRAINING, world.revision, held_open=True, **pod),))
        return world

    def test_the_job_of_a_trainer_that_succeeded_is_deleted(self) -> None:
        world = self.world(exit_code=0)
        world.learn()
        assert deleted_jobs(world.plan()) == [f"dogs-{world.revision}-1"]

    def test_a_failed_trainer_is_reported_before_its_job_is_deleted(self) -> None:
        world = self.world(exit_code=3, termination_message="Traceback: boom")
        plan = world.step()
        assert "exit code 3: Traceback: boom" in message_of(plan, ConditionType.STALLED)
        assert deleted_jobs(plan) == []
        assert deleted_jobs(world.plan()) == [f"dogs-{world.revision}-1"]

    def test_its_pod_does_not_keep_the_next_attempt_from_starting(self) -> None:
        world = self.world(exit_code=3)
        world.step()
        world.see(jobs=())
        world.edit(retrainNonce=1)
        assert starts_of(world.plan()) == [(world.revision, 2)]


def test_a_pod_may_wait_for_a_node_longer_than_its_deadline() -> None:
    world = world_in_training(training={"activeDeadlineSeconds": 60})
    created_at = (NOW - timedelta(days=2)).isoformat()
    waiting = make_pod(
        Component.TRAINING, world.revision, phase="Pending", unschedulable="0/1 nodes are available.", created_at=created_at
    )
    world.see(jobs=(make_job(world.observed.classifier, created_at=created_at),), pods=(waiting,))
    plan = world.step()
    assert condition_of(plan, ConditionType.TRAINED) == ("False", "Unschedulable")
    assert condition_of(plan, ConditionType.STALLED) is None
    assert world.plan().actions == ()


def test_a_pod_past_its_deadline_fails_the_training_without_another_try() -> None:
    world = world_in_training()
    world.step()
    world.see(
        pods=(make_pod(Component.TRAINING, world.revision, phase="Failed", exit_code=143, end_reason="DeadlineExceeded"),)
    )
    plan = world.step()
    assert "timed out after 3600 s" in message_of(plan, ConditionType.STALLED)
    assert deleted_jobs(world.plan()) == [f"dogs-{world.revision}-1"]


def test_an_eviction_is_quoted() -> None:
    world = world_in_training()
    world.step()
    said = 'Usage of EmptyDir volume "scratch" exceeds the limit "32Gi". '
    pod = make_pod(Component.TRAINING, world.revision, phase="Failed", exit_code=137, end_reason="Evicted", end_message=said)
    world.see(jobs=(make_job(world.observed.classifier, finished=True, failure_reason="PodFailurePolicy"),), pods=(pod,))
    assert (
        'its Pod was evicted: Usage of EmptyDir volume "scratch" exceeds the limit "32Gi"; reduce what it uses'
        in message_of(world.plan(), ConditionType.STALLED)
    )


def test_an_edit_while_a_job_runs_replaces_the_job() -> None:
    world = world_in_training()
    world.step()
    old = world.observed.jobs[0].identity.name
    world.edit(model={"seed": 1})
    plan = world.plan()
    assert deleted_jobs(plan) == [old]
    assert starts_of(plan) == [(world.revision, 2)]


def test_an_ended_job_of_an_earlier_revision_is_kept_until_its_ttl() -> None:
    world = world_in_training()
    world.step()
    ended: ObservedJob = make_job(world.observed.classifier, finished=True, succeeded=True)
    world.see(jobs=(ended,))
    world.edit(model={"seed": 1})
    plan = world.plan()
    assert (deleted_jobs(plan), starts_of(plan)) == ([], [(world.revision, 2)])


def test_an_edit_of_serving_leaves_a_running_job_alone() -> None:
    world = world_in_training()
    world.see(pods=(make_pod(Component.TRAINING, world.revision),))
    world.step()
    world.edit(serving={"replicas": 3})
    plan = world.plan()
    assert (deleted_jobs(plan), starts_of(plan)) == ([], [])


def test_an_edit_of_training_leaves_a_running_trainer_alone() -> None:
    world = world_in_training()
    world.see(pods=(make_pod(Component.TRAINING, world.revision),))
    world.step()
    world.edit(training={"backoffLimit": 5})
    assert deleted_jobs(world.plan()) == []


def test_an_edit_of_training_replaces_a_job_that_waits_for_a_node() -> None:
    world = world_in_training()
    world.see(pods=(make_pod(Component.TRAINING, world.revision, phase="Pending", unschedulable="0/1 nodes are available."),))
    world.step()
    old = world.observed.jobs[0].identity.name
    world.edit(training={"resources": {"requests": {"cpu": "1"}}})
    plan = world.step()
    assert deleted_jobs(plan) == [old]
    world.see(pods=())
    assert starts_of(world.plan()) == [(world.revision, 2)]


class TestDataRetention:
    def drops(self, plan: Plan) -> list[str]:
        return [action.revision for action in plan.actions if isinstance(action, DropExamples)]

    def test_examples_are_kept_unless_the_spec_says_otherwise(self) -> None:
        world = World()
        world.learn()
        assert self.drops(world.plan()) == []

    def test_examples_are_kept_during_the_training(self) -> None:
        assert self.drops(world_in_training(dataRetention="DropAfterTraining").plan()) == []

    def test_examples_are_dropped_after_the_training(self) -> None:
        world = World(dataRetention="DropAfterTraining")
        world.learn()
        assert self.drops(world.plan()) == [world.revision]

    @pytest.mark.parametrize("reason", [OutcomeReason.INVALID_DATA, OutcomeReason.BACKBONE_UNAVAILABLE])
    def test_examples_are_dropped_after_a_failed_training(self, reason: OutcomeReason) -> None:
        world = World(dataRetention="DropAfterTraining")
        outcome = make_outcome(world.observed.classifier, reason, "it says why")
        world.see(jobs=(make_job(world.observed.classifier, finished=True),), outcome=outcome)
        assert self.drops(world.plan()) == [world.revision]

    def test_examples_are_not_dropped_twice(self) -> None:
        world = World(dataRetention="DropAfterTraining")
        world.learn()
        world.see(memory=Memory(dropped_revision=world.revision))
        assert self.drops(world.plan()) == []


class TestRunning:
    def test_a_job_without_a_pod_is_queued(self) -> None:
        assert condition_of(world_in_training().plan(), ConditionType.TRAINED) == ("False", "Queued")

    def test_the_reason_of_a_waiting_container_is_reported(self) -> None:
        world = world_in_training()
        pod = make_pod(Component.TRAINING, world.revision, phase="Pending", waiting="ImagePullBackOff: no such image")
        world.see(pods=(pod,))
        assert "ImagePullBackOff: no such image" in message_of(world.plan(), ConditionType.TRAINED)

    def test_a_failed_try_is_reported_until_the_next_one_starts(self) -> None:
        world = world_in_training()
        dead = make_pod(Component.TRAINING, world.revision, phase="Failed", exit_code=1, termination_message="boom")
        world.see(pods=(dead,))
        plan = world.plan()
        assert condition_of(plan, ConditionType.TRAINED) == ("False", "Queued")
        said = "try 1 of 3 failed (boom); Kubernetes tries again shortly"
        assert message_of(plan, ConditionType.TRAINED).endswith(f"-1: {said}")

    def test_no_retry_is_announced_after_a_final_exit_code(self) -> None:
        world = world_in_training()
        world.see(pods=(make_pod(Component.TRAINING, world.revision, phase="Failed", exit_code=64),))
        assert "tried again" not in message_of(world.plan(), ConditionType.TRAINED)

    def test_a_running_pod_is_training(self) -> None:
        world = world_in_training()
        world.see(pods=(make_pod(Component.TRAINING, world.revision),))
        plan = world.plan()
        assert condition_of(plan, ConditionType.TRAINED) == ("False", "Training")
        assert condition_of(plan, ConditionType.RECONCILING) == ("True", "Training")
        assert condition_of(plan, ConditionType.READY) == ("False", "Training")

    def test_progress_is_polled_only_while_a_trainer_runs(self) -> None:
        world = world_in_training()
        world.see(pods=(make_pod(Component.TRAINING, world.revision, phase="Pending"),))
        assert world.plan().requeue_after_seconds is None
        world.see(pods=(make_pod(Component.TRAINING, world.revision),))
        assert world.plan().requeue_after_seconds == 2.0

    @pytest.mark.parametrize(("age_seconds", "requeue_after_seconds"), [(0, 5.0), (60, 30.0)])
    def test_a_job_without_a_pod_is_reconciled_again(self, age_seconds: int, requeue_after_seconds: float) -> None:
        world = world_in_training()
        created_at = (NOW - timedelta(seconds=age_seconds)).isoformat()
        world.see(jobs=(make_job(world.observed.classifier, created_at=created_at),))
        assert world.plan().requeue_after_seconds == requeue_after_seconds

    def test_the_scheduler_is_quoted_with_a_remedy(self) -> None:
        world = world_in_training()
        sentence = "0/1 nodes are available: 1 Insufficient memory."
        world.see(pods=(make_pod(Component.TRAINING, world.revision, phase="Pending", unschedulable=sentence),))
        plan = world.plan()
        assert condition_of(plan, ConditionType.TRAINED) == ("False", "Unschedulable")
        assert condition_of(plan, ConditionType.READY) == ("False", "Unschedulable")
        assert "1 Insufficient memory" in message_of(plan, ConditionType.READY)
        assert "lower spec.training.resources" in message_of(plan, ConditionType.READY)
        assert condition_of(plan, ConditionType.STALLED) is None

    def test_checked_data_is_reported_before_the_training_ends(self) -> None:
        world = world_in_training()
        world.step()
        world.see(progress=ProgressReport(stage=Stage.FITTING, percent=60, data_valid=True))
        assert condition_of(world.plan(), ConditionType.DATA_VALID) == ("True", "Checked")

    def test_unchecked_data_is_unknown(self) -> None:
        assert condition_of(world_in_training().plan(), ConditionType.DATA_VALID) == ("Unknown", "NotChecked")


class TestProgress:
    def world(self) -> World:
        world = world_in_training()
        world.step()
        world.see(pods=(make_pod(Component.TRAINING, world.revision),))
        world.see(
            progress=ProgressReport(stage=Stage.READING, percent=10, data_valid=False), memory=Memory(progress_written_at=NOW)
        )
        world.step()
        return world

    def percent(self, world: World) -> int:
        progress = world.plan().status.progress
        assert progress is not None
        return progress.percent

    def test_it_is_not_written_twice_in_ten_seconds(self) -> None:
        world = self.world()
        world.see(progress=ProgressReport(stage=Stage.READING, percent=20, data_valid=False), now=NOW + timedelta(seconds=9))
        assert self.percent(world) == 10

    def test_it_is_written_after_ten_seconds(self) -> None:
        world = self.world()
        world.see(progress=ProgressReport(stage=Stage.READING, percent=20, data_valid=False), now=NOW + timedelta(seconds=10))
        assert self.percent(world) == 20

    def test_a_new_stage_is_not_written_earlier(self) -> None:
        world = self.world()
        world.see(progress=ProgressReport(stage=Stage.FITTING, percent=20, data_valid=True), now=NOW + timedelta(seconds=9))
        assert self.percent(world) == 10

    def test_images_device_and_accuracy_are_shown(self) -> None:
        world = self.world()
        report = ProgressReport(
            stage=Stage.EXTRACTING,
            percent=40,
            data_valid=True,
            images=64,
            images_total=500,
            device="OpenVINO CPU float32",
            accuracy=0.93456,
        )
        world.see(progress=report, now=NOW + timedelta(seconds=10))
        progress = world.plan().status.progress
        assert progress is not None
        assert (progress.images, progress.images_total, progress.device) == (64, 500, "OpenVINO CPU float32")
        assert progress.accuracy == "0.935"

    @pytest.mark.parametrize(("percent", "shown"), [(0, None), (40, 40)])
    def test_a_download_of_weights_without_progress_shows_no_percentage(self, percent: int, shown: int | None) -> None:
        world = world_in_training(classes=[], pretrained=PRETRAINED)
        world.step()
        world.see(pods=(make_pod(Component.TRAINING, world.revision),))
        world.see(progress=ProgressReport(stage=Stage.READING, percent=percent, data_valid=False))
        progress = world.plan().status.progress
        assert (None if progress is None else progress.percent) == shown

    def test_it_says_how_far_fine_tuning_is(self) -> None:
        world = self.world()
        tuning = TuningProgress(network=2, networks=6, epoch=3, epochs=10, loss=0.25)
        report = ProgressReport(stage=Stage.FITTING, percent=20, data_valid=True, fine_tuning=tuning)
        world.see(progress=report, now=NOW + timedelta(seconds=10))
        progress = world.plan().status.progress
        assert progress is not None
        assert progress.fine_tuning == FineTuningProgress(network=2, networks=6, epoch=3, epochs=10, loss="0.2500")

    def test_it_is_removed_when_the_training_ends(self) -> None:
        world = self.world()
        world.learn()
        assert world.plan().status.progress is None


class TestFailure:
    def failed(self, *pods: ObservedPod, job: dict[str, object] | None = None, **seen: object) -> Plan:
        world = world_in_training()
        world.step()
        ended = {"finished": True, "failure_reason": "PodFailurePolicy", **(job or {})}
        made: ObservedJob = make_job(world.observed.classifier, **ended)
        world.see(jobs=(made,), pods=pods, **seen)
        return world.plan()

    def revision(self) -> str:
        return current_revision(make_classifier())

    def dead_trainer(self, **fields: object) -> ObservedPod:
        return make_pod(Component.TRAINING, self.revision(), phase="Failed", **fields)

    def test_invalid_data_is_reported_in_every_condition(self) -> None:
        outcome = make_outcome(make_classifier(), OutcomeReason.INVALID_DATA, 'class "cat" has 3 examples; add at least 7')
        plan = self.failed(self.dead_trainer(exit_code=64, termination_message=outcome.to_termination_message()))
        assert condition_of(plan, ConditionType.DATA_VALID) == ("False", "InvalidData")
        assert condition_of(plan, ConditionType.TRAINED) == ("False", "InvalidData")
        assert condition_of(plan, ConditionType.STALLED) == ("True", "InvalidData")
        assert condition_of(plan, ConditionType.READY) == ("False", "InvalidData")
        assert condition_of(plan, ConditionType.RECONCILING) is None

    @pytest.mark.parametrize("reason", [OutcomeReason.TRAINING_DIVERGED, OutcomeReason.GPU_OUT_OF_MEMORY])
    def test_failed_fine_tuning_has_a_reason_of_its_own_and_is_not_retried(self, reason: OutcomeReason) -> None:
        outcome = make_outcome(make_classifier(), reason, "lower spec.model")
        plan = self.failed(self.dead_trainer(exit_code=65, termination_message=outcome.to_termination_message()))
        for condition_type in (ConditionType.TRAINED, ConditionType.READY):
            assert condition_of(plan, condition_type) == ("False", reason)
        assert condition_of(plan, ConditionType.STALLED) == ("True", reason)
        assert message_of(plan, ConditionType.STALLED) == "lower spec.model"

    def test_the_message_for_invalid_data_behind_a_url_names_the_nonce(self) -> None:
        outcome = make_outcome(make_classifier(), OutcomeReason.INVALID_DATA, 'class "cat" has 3 examples; add at least 7')
        plan = self.failed(self.dead_trainer(exit_code=64, termination_message=outcome.to_termination_message()))
        said = 'class "cat" has 3 examples; add at least 7; then raise spec.retrainNonce to read the sources again'
        reported = (ConditionType.DATA_VALID, ConditionType.TRAINED, ConditionType.STALLED, ConditionType.READY)
        assert [message_of(plan, condition_type) for condition_type in reported] == [said] * 4

    def test_the_message_for_invalid_uploads_does_not_name_the_nonce(self) -> None:
        uploads = [{"name": name, "examples": [{"upload": digest * 64}]} for name, digest in (("cat", "c"), ("dog", "d"))]
        world = World(classes=uploads)
        world.step()
        outcome = make_outcome(world.observed.classifier, OutcomeReason.INVALID_DATA, "3 examples; add at least 7")
        world.see(jobs=(), outcome=outcome)
        assert message_of(world.plan(), ConditionType.STALLED) == "3 examples; add at least 7"

    def test_an_unreadable_source_is_reported_in_every_condition(self) -> None:
        outcome = make_outcome(make_classifier(), OutcomeReason.SOURCE_UNREADABLE, "https://data.test/cat.zip: 404")
        plan = self.failed(self.dead_trainer(exit_code=64, termination_message=outcome.to_termination_message()))
        assert condition_of(plan, ConditionType.DATA_VALID) == ("False", "SourceUnreadable")
        assert condition_of(plan, ConditionType.TRAINED) == ("False", "SourceUnreadable")
        assert condition_of(plan, ConditionType.STALLED) == ("True", "SourceUnreadable")
        assert condition_of(plan, ConditionType.READY) == ("False", "SourceUnreadable")

    def test_an_unreadable_source_is_not_retried_automatically(self) -> None:
        world = world_in_training()
        world.step()
        outcome = make_outcome(world.observed.classifier, OutcomeReason.SOURCE_UNREADABLE, "https://data.test/cat.zip: 404")
        world.see(jobs=(), outcome=outcome)
        world.step()
        world.see(outcome=None)
        assert (world.plan().actions, world.plan().status) == ((), world.status)

    def test_the_stored_outcome_counts_after_the_pod_is_gone(self) -> None:
        outcome = make_outcome(make_classifier(), OutcomeReason.BACKBONE_UNAVAILABLE, "backbone resnet50 is not installed")
        plan = self.failed(outcome=outcome)
        assert condition_of(plan, ConditionType.STALLED) == ("True", "TrainingFailed")
        assert message_of(plan, ConditionType.TRAINED) == "backbone resnet50 is not installed"

    def test_an_outcome_of_another_attempt_does_not_count(self) -> None:
        outcome = make_outcome(make_classifier(), OutcomeReason.INVALID_DATA, "an old story", attempt=7)
        plan = self.failed(self.dead_trainer(exit_code=1, termination_message=outcome.to_termination_message()))
        assert condition_of(plan, ConditionType.STALLED) == ("True", "TrainingFailed")

    @pytest.mark.parametrize(
        ("pod", "job", "said"),
        [
            (
                {"exit_code": 137, "exit_reason": "OOMKilled", "memory_limit": "64Mi"},
                {},
                "the trainer ran out of memory at its limit of 64Mi (OOMKilled); raise spec.training.resources.limits.memory",
            ),
            ({"exit_code": 137}, {}, "was killed (exit code 137)"),
            ({"exit_code": 3, "termination_message": "Traceback: boom"}, {}, "exit code 3: Traceback: boom"),
            ({"exit_code": None}, {"failure_message": "Job was odd"}, "Job was odd; raise spec.retrainNonce"),
            (
                {"exit_code": None},
                {"failure_reason": "DeadlineExceeded"},
                "timed out after 3600 s; raise spec.training.activeDeadlineSeconds",
            ),
        ],
    )
    def test_every_other_failure_names_the_job_the_fact_and_the_remedy(
        self, pod: dict[str, object], job: dict[str, object], said: str
    ) -> None:
        reason = {"failure_reason": "PodFailurePolicy", **job}
        world = world_in_training()
        world.step()
        made: ObservedJob = make_job(world.observed.classifier, finished=True, **reason)
        world.see(jobs=(made,), pods=(self.dead_trainer(**pod),))
        plan = world.plan()
        assert condition_of(plan, ConditionType.TRAINED) == ("False", "TrainingFailed")
        assert f"training Job dogs-{self.revision()}-1" in message_of(plan, ConditionType.STALLED)
        assert said in message_of(plan, ConditionType.STALLED)

    def test_a_success_without_an_artifact_is_a_failure(self) -> None:
        outcome = make_outcome(make_classifier(), OutcomeReason.SUCCEEDED, "done")
        pod = make_pod(
            Component.TRAINING,
            self.revision(),
            phase="Succeeded",
            exit_code=0,
            termination_message=outcome.to_termination_message(),
        )
        plan = self.failed(pod, job={"succeeded": True, "failure_reason": ""})
        assert "holds no artifact" in message_of(plan, ConditionType.STALLED)

    def test_an_unusable_artifact_is_reported_with_the_reason(self) -> None:
        world = world_in_training()
        fault = "object store: 'k' has 9 bytes, and at most 8 are read"
        world.see(jobs=(make_job(world.observed.classifier, finished=True, succeeded=True),), store_fault=fault)
        message = message_of(world.plan(), ConditionType.STALLED)
        assert fault in message
        assert message.endswith("; raise spec.retrainNonce to train again")


class TestAfterAFailure:
    def world(self) -> World:
        world = world_in_training()
        world.step()
        world.see(
            jobs=(make_job(world.observed.classifier, finished=True, failure_reason="BackoffLimitExceeded"),),
            pods=(make_pod(Component.TRAINING, world.revision, phase="Failed", exit_code=1),),
        )
        world.step()
        return world

    def test_it_is_final(self) -> None:
        world = self.world()
        plan = world.plan()
        assert (plan.actions, plan.status) == ((), world.status)
        assert lifecycle(world.observed.classifier) is Lifecycle.FAILED

    def test_it_is_final_without_its_job(self) -> None:
        world = self.world()
        world.see(jobs=(), pods=())
        assert (world.plan().actions, world.plan().status) == ((), world.status)

    def test_an_edit_of_serving_does_not_try_again(self) -> None:
        world = self.world()
        world.edit(serving={"replicas": 2})
        assert starts_of(world.plan()) == []
        assert condition_of(world.plan(), ConditionType.STALLED) == ("True", "TrainingFailed")

    @pytest.mark.parametrize("change", [{"retrainNonce": 1}, {"training": {"resources": {"limits": {"memory": "8Gi"}}}}])
    def test_a_raised_nonce_or_other_training_resources_try_again(self, change: dict[str, object]) -> None:
        world = self.world()
        world.edit(**change)
        plan = world.plan()
        assert starts_of(plan) == [(world.revision, 2)]
        assert condition_of(plan, ConditionType.STALLED) is None
        assert plan.status.failed_revision is None

    def test_another_spec_is_another_revision(self) -> None:
        world = self.world()
        world.edit(model={"seed": 3})
        assert starts_of(world.plan()) == [(world.revision, 2)]


PRETRAINED = {"weights": {"torchvision": "ResNet50_Weights.IMAGENET1K_V2"}}


class TestAPretrainedClassifier:
    """It has no examples, and no condition mentions any."""

    def world(self) -> World:
        world = World(classes=[], pretrained=PRETRAINED)
        world.step()
        return world

    def test_it_is_prepared_by_a_job_like_any_revision(self) -> None:
        world = World(classes=[], pretrained=PRETRAINED)
        assert starts_of(world.plan()) == [(world.revision, 1)]

    def test_its_conditions_do_not_mention_examples(self) -> None:
        world = self.world()
        world.learn()
        messages = [message_of(world.plan(), kind) for kind in (ConditionType.DATA_VALID, ConditionType.TRAINED)]
        assert messages == [
            "weights and labels were read, and they match",
            f"revision {world.revision} was prepared from its weights, without a training",
        ]

    @pytest.mark.parametrize("reason", [OutcomeReason.INVALID_DATA, OutcomeReason.SOURCE_UNREADABLE])
    def test_a_failure_is_reported_with_how_to_try_again(self, reason: OutcomeReason) -> None:
        world = self.world()
        world.see(outcome=make_outcome(world.observed.classifier, reason, "labels has 3 lines; give 4"))
        plan = world.plan()
        assert condition_of(plan, ConditionType.STALLED) == ("True", str(reason))
        assert message_of(plan, ConditionType.READY) == (
            "labels has 3 lines; give 4; then raise spec.retrainNonce to have it tried again"
        )

    @pytest.mark.parametrize("reason", [OutcomeReason.SOURCE_UNREADABLE, OutcomeReason.BACKBONE_UNAVAILABLE])
    def test_a_raised_nonce_tries_the_same_revision_again(self, reason: OutcomeReason) -> None:
        world = self.world()
        world.see(outcome=make_outcome(world.observed.classifier, reason, "it is not there"))
        world.step()
        revision = world.revision
        world.edit(classes=[], pretrained=PRETRAINED, retrainNonce=1)
        assert starts_of(world.plan()) == [(revision, 2)]


def test_a_manifest_that_the_api_server_calls_invalid_fails_the_training() -> None:
    world = World(training={"resources": {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}})
    (start,) = [action for action in world.plan().actions if isinstance(action, StartTraining)]
    world.refuse(start.manifest_hash, "requests must be at most limits", invalid=True)
    plan = world.plan()
    assert starts_of(plan) == []
    assert "requests must be at most limits; correct spec.training" in message_of(plan, ConditionType.STALLED)


def test_a_job_that_exceeds_a_quota_is_queued_and_sent_again() -> None:
    world = World()
    (start,) = [action for action in world.plan().actions if isinstance(action, StartTraining)]
    world.refuse(start.manifest_hash, "exceeded quota: jobs; raise the quota")
    plan = world.step()
    assert condition_of(plan, ConditionType.TRAINED) == ("False", "Queued")
    assert "exceeded quota: jobs; raise the quota" in message_of(plan, ConditionType.TRAINED)
    assert condition_of(plan, ConditionType.STALLED) is None
    assert starts_of(world.plan()) == [(world.revision, 1)]


class TestPin:
    def test_a_pin_to_an_unknown_revision_stalls(self) -> None:
        world = settled_world()
        served = world.status.served_revision
        world.edit(pinnedRevision="0123456789")
        plan = world.step()
        assert condition_of(plan, ConditionType.STALLED) == ("True", "RevisionNotFound")
        assert f"pin one of {served}, or remove the pin" in message_of(plan, ConditionType.STALLED)
        assert plan.status.served_revision == served

    def test_a_pin_to_the_revision_of_the_spec_itself_trains(self) -> None:
        revision = current_revision(make_classifier())
        world = World(pinnedRevision=revision)
        assert starts_of(world.plan()) == [(revision, 1)]


def test_a_deleted_classifier_is_left_alone() -> None:
    world = settled_world()
    world.see(classifier=replace(world.observed.classifier, deleted=True), deployments=(), services=())
    plan = world.plan()
    assert (plan.actions, plan.status) == ((), world.status)


def test_a_superseded_job_is_not_deleted_twice() -> None:
    world = World()
    going = make_job(
        world.observed.classifier,
        revision="0123456789",
        identity=make_identity("dogs-0123456789-1", "0123456789", deleting=True),
    )
    world.see(jobs=(going,))
    assert deleted_jobs(world.plan()) == []


def test_data_that_is_not_checked_yet_is_unknown() -> None:
    plan = world_in_training().plan()
    condition = plan.status.condition(ConditionType.DATA_VALID)
    assert condition is not None
    assert condition.status is ConditionStatus.UNKNOWN


def test_a_job_that_ended_before_status_recorded_it_is_counted() -> None:
    world = World()
    world.see(jobs=(make_job(world.observed.classifier, finished=True, succeeded=True),))
    world.learn()
    assert world.plan().status.attempt == 1
