"""A revision that may not serve yet: what the plan leaves alone, what status says, and what releases it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ocelli_api.classifier_status import AccuracyDrop, RevisionComparison
from ocelli_api.conditions import ConditionType
from ocelli_api.lifecycle import Lifecycle, lifecycle
from ocelli_operator.actions import DropExamples, StartTraining
from ocelli_operator.metrics import OperatorMetrics
from ocelli_operator.observed import ChildKind
from ocelli_operator.plan import Plan
from ocelli_operator.status import find_occurrences
from tests.unit.operator.factories import LATER, World, find_applied, make_artifact, message_of, settled_world

LOW = {"minAccuracy": "0.95"}
DROP = {"maxAccuracyDrop": "0.02"}
MANUAL = {"approval": "Manual"}
RETRAINED = {"model": {"seed": 1}}


def reason_of(plan: Plan, condition_type: ConditionType) -> str | None:
    condition = plan.status.condition(condition_type)
    return None if condition is None else f"{condition.status}/{condition.reason}"


def compare(world: World, drop: str) -> None:
    """The training of the current revision succeeds, with this drop against the served revision."""
    baseline = world.status.served_revision or ""
    comparison = RevisionComparison(
        baseline=baseline, accuracy_drop=AccuracyDrop(drop=drop, lower="-0.100", upper="0.200"), images=240
    )
    world.see(artifact=replace(make_artifact(world.observed.classifier), comparison=comparison))


def retrained_world(promotion: dict[str, str], drop: str | None = None, **spec: Any) -> World:
    """Settled without gates, then edited and trained again."""
    world = settled_world()
    world.edit(promotion=promotion, **RETRAINED, **spec)
    world.step()
    if drop is None:
        world.learn()
    else:
        compare(world, drop)
    return world


def world_of_an_earlier_release() -> World:
    """Two revisions were trained, and the second serves; their entries have no times of a promotion."""
    world = settled_world()
    world.edit(**RETRAINED)
    world.step()
    world.learn()
    world.settle()
    artifact = world.observed.artifact
    status = replace(world.status, history=tuple(replace(entry, promoted_at=None) for entry in world.status.history))
    world.see(classifier=replace(world.observed.classifier, status=status))
    assert artifact is not None
    world.see(artifact=replace(artifact, promoted_at=None))
    return world


def change(world: World, **spec: Any) -> None:
    """A user changes the spec in a way that keeps the revision and its artifact."""
    artifact, before = world.observed.artifact, world.revision
    world.edit(**RETRAINED, **spec)
    assert world.revision == before
    world.see(artifact=artifact)


class TestUnmetGate:
    def test_the_old_revision_serves_on(self) -> None:
        world = retrained_world(DROP, "0.083")
        old = world.status.served_revision
        world.settle()
        assert world.status.served_revision == old
        assert [item.identity.revision for item in world.observed.deployments] == [old]
        assert reason_of(world.plan(), ConditionType.AVAILABLE) == "True/Serving"

    def test_status_says_which_gate_and_that_a_person_must_act(self) -> None:
        world = retrained_world(DROP, "0.083")
        world.settle()
        plan = world.plan()
        assert reason_of(plan, ConditionType.PROMOTED) == "False/Regressed"
        assert reason_of(plan, ConditionType.READY) == "False/Regressed"
        assert reason_of(plan, ConditionType.STALLED) == "True/Regressed"
        assert reason_of(plan, ConditionType.TRAINED) == "True/ArtifactStored"
        assert reason_of(plan, ConditionType.RECONCILING) is None
        assert "0.083 less accurate" in message_of(plan, ConditionType.STALLED)

    def test_v3_shows_a_failed_retrain(self) -> None:
        world = retrained_world(DROP, "0.083")
        world.settle()
        assert lifecycle(world.observed.classifier) is Lifecycle.FAILED

    def test_it_is_neither_settled_nor_trained_again(self) -> None:
        world = retrained_world(DROP, "0.083")
        old = world.status.served_revision
        world.settle()
        world.see(now=LATER)
        plan = world.plan()
        assert (plan.actions, plan.status, plan.requeue_after_seconds) == ((), world.status, None)
        assert (plan.status.settled_revision, plan.status.retrained_at) == (old, None)

    def test_history_keeps_it_without_a_promotion(self) -> None:
        world = retrained_world(DROP, "0.083")
        world.settle()
        held, served = world.status.history
        assert held.comparison is not None
        assert held.promoted_at is None
        assert served.promoted_at is not None

    def test_the_accuracy_in_status_stays_that_of_the_served_revision(self) -> None:
        world = settled_world()
        world.edit(promotion=LOW, **RETRAINED)
        world.step()
        world.see(artifact=replace(make_artifact(world.observed.classifier), accuracy="0.111"))
        world.settle()
        assert world.status.accuracy == "0.934"

    def test_a_first_revision_does_not_serve(self) -> None:
        world = World(promotion=LOW)
        world.step()
        world.learn()
        world.settle()
        plan = world.plan()
        assert world.status.served_revision is None
        assert world.observed.deployments == ()
        assert reason_of(plan, ConditionType.STALLED) == "True/BelowMinimumAccuracy"
        assert reason_of(plan, ConditionType.AVAILABLE) == "False/NeverServed"
        assert lifecycle(world.observed.classifier) is Lifecycle.FAILED

    def test_one_warning_reports_it(self) -> None:
        world = retrained_world(DROP, "0.083")
        before = world.status
        world.settle()
        events = find_occurrences(before, world.status)
        assert [(event.type, event.reason) for event in events] == [("Normal", "ArtifactStored"), ("Warning", "Regressed")]

    def test_examples_that_must_not_be_kept_are_dropped_all_the_same(self) -> None:
        world = retrained_world(DROP, "0.083", dataRetention="DropAfterTraining")
        assert any(isinstance(action, DropExamples) for action in world.step().actions)

    def test_a_served_revision_is_still_scaled(self) -> None:
        world = retrained_world(DROP, "0.083")
        world.settle()
        change(world, promotion=DROP, serving={"replicas": 2})
        (applied,) = find_applied(world.plan(), ChildKind.DEPLOYMENT)
        assert applied["metadata"]["name"] == f"dogs-{world.status.served_revision}"


class TestNotComparable:
    def test_it_is_unknown_and_held(self) -> None:
        world = retrained_world(DROP)
        old = world.status.served_revision
        world.settle()
        assert world.status.served_revision == old
        assert reason_of(world.plan(), ConditionType.PROMOTED) == "Unknown/NotComparable"
        assert reason_of(world.plan(), ConditionType.STALLED) == "True/NotComparable"


class TestRelease:
    def test_an_approval_releases_it_without_a_training(self) -> None:
        world = retrained_world(DROP, "0.083")
        world.settle()
        change(world, promotion=DROP, approvedRevision=world.revision)
        assert not any(isinstance(action, StartTraining) for action in world.plan().actions)
        world.settle()
        assert world.status.served_revision == world.revision
        assert reason_of(world.plan(), ConditionType.PROMOTED) == "True/Approved"
        assert reason_of(world.plan(), ConditionType.READY) == "True/Served"
        assert world.status.retrained_at is not None
        assert lifecycle(world.observed.classifier) is Lifecycle.READY

    def test_a_wider_gate_releases_it_without_a_training(self) -> None:
        world = retrained_world(DROP, "0.083")
        world.settle()
        change(world, promotion={"maxAccuracyDrop": "0.1"})
        world.settle()
        assert world.status.served_revision == world.revision
        assert reason_of(world.plan(), ConditionType.PROMOTED) == "True/GatesMet"

    def test_removing_the_gates_releases_it(self) -> None:
        world = retrained_world(DROP, "0.083")
        world.settle()
        change(world)
        world.settle()
        assert world.status.served_revision == world.revision
        assert reason_of(world.plan(), ConditionType.PROMOTED) is None

    def test_a_narrower_gate_stops_a_rollout(self) -> None:
        world = retrained_world(DROP, "0.010")
        old = world.status.served_revision
        world.step(available=False)
        assert len(world.observed.deployments) == 2
        change(world, promotion={"maxAccuracyDrop": "0"})
        world.settle()
        assert [item.identity.revision for item in world.observed.deployments] == [old]

    def test_a_gate_does_not_apply_to_what_serves_already(self) -> None:
        world = settled_world()
        artifact = world.observed.artifact
        world.edit(promotion=LOW)
        world.see(artifact=artifact)
        world.settle()
        assert reason_of(world.plan(), ConditionType.READY) == "True/Served"
        assert reason_of(world.plan(), ConditionType.PROMOTED) == "True/ServedBefore"


class TestManualApproval:
    def test_it_waits_without_failing(self) -> None:
        world = retrained_world(MANUAL)
        old = world.status.served_revision
        world.settle()
        plan = world.plan()
        assert world.status.served_revision == old
        assert reason_of(plan, ConditionType.PROMOTED) == "False/AwaitingApproval"
        assert reason_of(plan, ConditionType.READY) == "False/AwaitingApproval"
        assert (reason_of(plan, ConditionType.STALLED), reason_of(plan, ConditionType.RECONCILING)) == (None, None)
        assert lifecycle(world.observed.classifier) is Lifecycle.RETRAINING

    def test_an_event_names_the_revision_to_approve(self) -> None:
        world = retrained_world(MANUAL)
        before = world.status
        world.settle()
        event = find_occurrences(before, world.status)[-1]
        assert (event.type, event.reason) == ("Normal", "AwaitingApproval")
        assert f'set spec.approvedRevision to "{world.revision}"' in event.note

    def test_the_approval_serves_it(self) -> None:
        world = retrained_world(MANUAL)
        world.settle()
        change(world, promotion=MANUAL, approvedRevision=world.revision)
        world.settle()
        assert world.status.served_revision == world.revision


class TestRollBack:
    def test_a_revision_that_served_needs_no_gate(self) -> None:
        world = settled_world()
        first = world.status.served_revision
        world.edit(promotion={**DROP, **MANUAL}, approvedRevision=None, **RETRAINED)
        world.step()
        compare(world, "-0.050")
        world.settle()
        change(world, promotion={**DROP, **MANUAL}, approvedRevision=world.revision)
        world.settle()
        second = world.status.served_revision
        assert second not in (None, first)
        world.edit(promotion={**DROP, **MANUAL}, approvedRevision=second)
        world.see(artifact=next(entry for entry in world.status.history if entry.revision == first))
        world.settle()
        assert world.status.served_revision == first
        assert reason_of(world.plan(), ConditionType.PROMOTED) == "True/ServedBefore"

    def test_a_revision_that_an_earlier_release_served_can_be_rolled_back_to(self) -> None:
        world = world_of_an_earlier_release()
        oldest, served = world.status.history[-1], world.status.served_revision
        assert oldest.revision != served
        world.edit(promotion={**DROP, **MANUAL})
        world.see(artifact=oldest)
        world.settle()
        assert world.status.served_revision == oldest.revision
        assert reason_of(world.plan(), ConditionType.PROMOTED) == "True/ServedBefore"

    def test_what_an_earlier_release_trained_counts_as_served_then(self) -> None:
        world = world_of_an_earlier_release()
        world.edit(promotion=DROP, model={"seed": 7})
        world.step()
        compare(world, "0.083")
        world.settle()
        held, *earlier = world.status.history
        assert held.promoted_at is None
        assert [entry.promoted_at for entry in earlier] == [entry.trained_at for entry in earlier]

    def test_an_upgrade_rewrites_no_status(self) -> None:
        world = world_of_an_earlier_release()
        assert world.plan().status == world.status

    def test_a_served_revision_that_is_trained_again_has_served(self) -> None:
        world = settled_world(promotion=LOW, approvedRevision=World(promotion=LOW).revision)
        (before,) = world.status.history
        world.see(now=LATER, artifact=replace(before, artifact_digest="e" * 64, promoted_at=None))
        world.settle()
        (after,) = world.status.history
        assert (after.artifact_digest, after.promoted_at) == ("e" * 64, before.promoted_at)


class TestBaseline:
    @staticmethod
    def baseline_of(world: World) -> str | None:
        """What the trainer is told to compare with."""
        (start,) = [action for action in world.plan().actions if isinstance(action, StartTraining)]
        (container,) = start.manifest["spec"]["template"]["spec"]["containers"]
        values = {item["name"]: item.get("value") for item in container["env"]}
        return values.get("OCELLI_BASELINE_REVISION")

    def test_a_first_training_has_none(self) -> None:
        assert self.baseline_of(World(promotion=DROP)) is None

    def test_a_retraining_is_compared_with_what_serves_also_without_a_gate(self) -> None:
        world = settled_world()
        world.edit(**RETRAINED)
        assert self.baseline_of(world) == world.status.served_revision

    def test_after_a_held_revision_it_is_still_what_serves(self) -> None:
        world = retrained_world(DROP, "0.083")
        world.settle()
        world.edit(promotion=DROP, model={"seed": 2})
        assert self.baseline_of(world) == world.status.served_revision
        assert world.status.served_revision != world.status.history[0].revision


class TestMetric:
    def test_held_revisions_are_counted_by_reason(self) -> None:
        held, waiting, served = retrained_world(DROP, "0.083"), retrained_world(MANUAL), settled_world()
        for world in (held, waiting):
            world.settle()
        metrics = OperatorMetrics()
        metrics.observe_classifiers(lambda: [world.observed.classifier for world in (held, waiting, served)])
        found = {
            sample.labels["reason"]: sample.value
            for metric in metrics.registry.collect()
            for sample in metric.samples
            if sample.name == "ocelli_revisions_held"
        }
        assert found == {"BelowMinimumAccuracy": 0, "Regressed": 1, "NotComparable": 0, "AwaitingApproval": 1}
