"""What a Classifier does and reports while it waits for its turn to train or to roll out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ocelli_api.conditions import Condition, ConditionStatus, ConditionType, ReadyReason, TrainedReason
from ocelli_operator.actions import StartTraining
from ocelli_operator.observed import ChildKind, StartKind, TrainingLimit
from ocelli_operator.plan import Plan
from tests.unit.operator.factories import World, find_applied, make_settings, settled_world

ALL = frozenset(StartKind)
NONE: frozenset[StartKind] = frozenset()


def find_started(plan: Plan) -> list[StartTraining]:
    return [action for action in plan.actions if isinstance(action, StartTraining)]


def condition(plan: Plan, condition_type: ConditionType) -> Condition:
    found = plan.status.condition(condition_type)
    assert found is not None
    return found


def upgraded_world(**spec: object) -> World:
    """A served Classifier, after an upgrade to another image of inference servers."""
    world = settled_world(**spec)
    world.settings = make_settings(OCELLI_INFERENCE_IMAGE="ocelli-inference:next")
    return world


def test_a_waiting_training_creates_no_job_and_reports_it() -> None:
    world = World()
    world.see(allowed_starts=NONE)
    plan = world.step()
    assert not find_started(plan)
    assert plan.waits == {StartKind.TRAINING}
    trained = condition(plan, ConditionType.TRAINED)
    assert trained.reason == TrainedReason.QUEUED
    assert "waits for its turn: this installation starts at most 100 trainings at the same time" in trained.message


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (
            TrainingLimit.STARTING,
            "this installation starts at most 100 trainings at the same time (OCELLI_TRAININGS_STARTING_LIMIT)",
        ),
        (TrainingLimit.INSTALLATION, "this installation runs at most 4 trainings at the same time (OCELLI_TRAININGS_LIMIT)"),
        (
            TrainingLimit.NAMESPACE,
            "namespace team-a runs at most 2 trainings at the same time (OCELLI_NAMESPACE_TRAININGS_LIMIT)",
        ),
    ],
)
def test_a_waiting_training_names_its_limit_and_the_setting(limit: TrainingLimit, words: str) -> None:
    world = World()
    world.settings = make_settings(OCELLI_TRAININGS_LIMIT="4", OCELLI_NAMESPACE_TRAININGS_LIMIT="2")
    world.see(allowed_starts=NONE, training_limit=limit)
    trained = condition(world.step(), ConditionType.TRAINED)
    assert trained.reason == TrainedReason.QUEUED
    assert trained.message.endswith(f" waits for its turn: {words}")


def test_a_training_for_kueue_waits_for_no_limit() -> None:
    world = World(training={"queueName": "gpus"})
    world.see(allowed_starts=NONE)
    plan = world.plan()
    assert len(find_started(plan)) == 1
    assert (plan.begins, plan.waits) == (NONE, NONE)


def test_a_training_that_still_waits_writes_nothing() -> None:
    world = World()
    world.see(allowed_starts=NONE)
    world.step()
    plan = world.step()
    assert not plan.actions
    assert plan.status == world.status


def test_a_training_starts_with_the_attempt_that_waited() -> None:
    world = World()
    world.see(allowed_starts=NONE)
    world.step()
    world.see(allowed_starts=ALL)
    plan = world.plan()
    assert [action.attempt for action in find_started(plan)] == [1]
    assert (plan.begins, plan.waits) == ({StartKind.TRAINING}, NONE)


def test_a_waiting_upgrade_leaves_it_ready() -> None:
    world = upgraded_world()
    world.see(allowed_starts=ALL - {StartKind.UPGRADE})
    plan = world.step()
    assert not plan.actions
    assert plan.waits == {StartKind.UPGRADE}
    ready = condition(plan, ConditionType.READY)
    assert (ready.status, ready.reason) == (ConditionStatus.TRUE, ReadyReason.SERVED)
    assert "waits for its turn: this installation runs at most 20 rollouts at the same time" in ready.message
    assert world.step().status == world.status


def test_an_upgrade_is_rolled_out_at_its_turn() -> None:
    world = upgraded_world()
    plan = world.plan()
    assert len(find_applied(plan, ChildKind.DEPLOYMENT)) == 1
    assert plan.begins == {StartKind.UPGRADE}


def test_a_users_change_does_not_wait_behind_upgrades() -> None:
    world = upgraded_world()
    world.see(allowed_starts=frozenset({StartKind.ROLLOUT}))
    world.edit(serving={"resources": {"limits": {"memory": "4Gi"}}})
    world.learn()
    plan = world.plan()
    assert len(find_applied(plan, ChildKind.DEPLOYMENT)) == 1
    assert plan.begins == {StartKind.ROLLOUT}


def test_a_users_change_that_has_to_wait_is_reported() -> None:
    world = settled_world()
    world.see(allowed_starts=NONE)
    world.edit(serving={"resources": {"limits": {"memory": "4Gi"}}})
    world.learn()
    plan = world.step()
    assert not plan.actions
    ready = condition(plan, ConditionType.READY)
    assert (ready.status, ready.reason) == (ConditionStatus.FALSE, ReadyReason.ROLLING_OUT)
    assert "waits for its turn" in ready.message
    assert world.step().status == world.status


def test_scaling_never_waits() -> None:
    world = settled_world()
    world.see(allowed_starts=NONE)
    world.edit(serving={"replicas": 3})
    world.learn()
    (manifest,) = find_applied(world.plan(), ChildKind.DEPLOYMENT)
    assert manifest["spec"]["replicas"] == 3


def test_scaling_does_not_wait_if_a_webhook_rewrites_the_pods() -> None:
    world = settled_world()
    (deployment,) = world.observed.deployments
    rewritten = deployment.child.content.replace(b"ocelli-inference:latest", b"mirror/ocelli-inference:latest")
    world.see(
        deployments=(replace(deployment, child=replace(deployment.child, content=rewritten)),), allowed_starts=frozenset()
    )
    world.edit(serving={"replicas": 3})
    (deployed,) = find_applied(world.plan(), ChildKind.DEPLOYMENT)
    assert deployed["spec"]["replicas"] == 3


def test_a_new_revision_that_has_to_wait_is_reported_while_the_old_one_serves() -> None:
    world = settled_world()
    served = world.status.served_revision
    world.edit(model={"seed": 1})
    world.learn()
    world.see(allowed_starts=NONE)
    plan = world.step()
    assert not find_applied(plan, ChildKind.DEPLOYMENT)
    assert plan.status.served_revision == served
    assert "waits for its turn" in condition(plan, ConditionType.READY).message
    assert plan.waits == {StartKind.ROLLOUT}


def test_upgrading_servers_that_are_not_ready_counts_as_a_rollout() -> None:
    world = upgraded_world()
    world.see(deployments=tuple(replace(item, replicas_available=0) for item in world.observed.deployments))
    assert world.plan().begins == {StartKind.ROLLOUT}


def test_a_deployment_of_an_earlier_release_waits_like_any_upgrade() -> None:
    world = upgraded_world()
    world.see(deployments=tuple(replace(item, serving_hash="") for item in world.observed.deployments))
    assert world.plan().begins == {StartKind.UPGRADE}
