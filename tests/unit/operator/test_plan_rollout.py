"""Which Deployments should there be, and which revision serves? The switch between revisions, and its failures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ocelli_api.classifier_status import AccuracyInterval
from ocelli_api.conditions import ConditionType
from ocelli_api.lifecycle import Lifecycle, lifecycle
from ocelli_api.pods import Component
from ocelli_operator.actions import ApplyChild, DeleteChild
from ocelli_operator.manifests.metadata import hash_annotation
from ocelli_operator.memory import Memory
from ocelli_operator.observed import ChildKind
from ocelli_operator.plan import Plan
from ocelli_operator.status import find_occurrences
from tests.unit.operator.factories import (
    LATER,
    World,
    as_child,
    find_applied,
    make_identity,
    make_pod,
    make_settings,
    message_of,
    settled_world,
)


def reason_of(plan: Plan, condition_type: ConditionType) -> str | None:
    condition = plan.status.condition(condition_type)
    return None if condition is None else f"{condition.status}/{condition.reason}"


def deletions(plan: Plan) -> list[tuple[ChildKind, str]]:
    return [(action.kind, action.identity.name) for action in plan.actions if isinstance(action, DeleteChild)]


def learned_world(**spec: object) -> World:
    world = World(**spec)
    world.step()
    world.learn()
    return world


def retrained_world(**spec: object) -> World:
    """Settled, then edited and trained again; nothing of the new revision is rolled out yet."""
    world = settled_world(**spec)
    world.edit(model={"seed": 1}, **spec)
    world.step()
    world.learn()
    return world


class TestFirstRollout:
    def test_the_deployment_comes_before_the_address(self) -> None:
        world = learned_world()
        plan = world.step(available=False)
        assert [item["metadata"]["name"] for item in find_applied(plan, ChildKind.DEPLOYMENT)] == [f"dogs-{world.revision}"]
        assert find_applied(plan, ChildKind.SERVICE) == []
        assert plan.status.served_revision is None

    def test_it_is_rolling_out_until_a_server_is_ready(self) -> None:
        world = learned_world()
        world.step(available=False)
        plan = world.plan()
        assert reason_of(plan, ConditionType.READY) == "False/RollingOut"
        assert reason_of(plan, ConditionType.AVAILABLE) == "False/NeverServed"
        assert "0 of 1 inference servers" in message_of(plan, ConditionType.READY)

    def test_the_switch_comes_before_ready(self) -> None:
        world = learned_world()
        world.step()
        plan = world.step()
        assert plan.status.served_revision == world.revision
        assert plan.status.settled_revision is None
        assert reason_of(plan, ConditionType.READY) == "False/RollingOut"
        assert reason_of(plan, ConditionType.AVAILABLE) == "True/Serving"

    def test_ready_comes_with_the_address(self) -> None:
        world = learned_world()
        world.settle()
        assert world.status.settled_revision == world.revision
        assert world.status.endpoint == "http://clf-dogs.team-a.svc:8080"
        assert reason_of(world.plan(), ConditionType.READY) == "True/Served"
        assert world.status.trained_at == "2026-05-04T11:50:00.000Z"
        assert lifecycle(world.observed.classifier) is Lifecycle.READY

    def test_accuracy_in_status_is_that_of_the_served_artifact(self) -> None:
        status = settled_world().status
        for measured in (status, status.history[0]):
            assert (measured.accuracy, measured.judged_images) == ("0.934", 100)
            assert measured.accuracy_interval == AccuracyInterval(lower="0.871", upper="0.967")

    def test_a_first_training_is_not_a_retraining(self) -> None:
        assert settled_world().status.retrained_at is None

    def test_a_settled_classifier_needs_no_action(self) -> None:
        world = settled_world()
        world.see(now=LATER)
        plan = world.plan()
        assert (plan.actions, plan.status, plan.requeue_after_seconds) == ((), world.status, None)


class TestNextRevision:
    def test_the_old_revision_serves_while_the_new_one_starts(self) -> None:
        world = retrained_world()
        old = world.status.served_revision
        plan = world.step(available=False)
        assert plan.status.served_revision == old
        assert deletions(plan) == []
        assert reason_of(plan, ConditionType.AVAILABLE) == "True/Serving"
        assert lifecycle(world.observed.classifier) is Lifecycle.RETRAINING

    def test_the_switch_itself_deletes_nothing(self) -> None:
        world = retrained_world()
        world.step()
        plan = world.step()
        assert plan.status.served_revision == world.revision
        assert deletions(plan) == []

    def test_the_address_moves_before_the_old_deployment_is_deleted(self) -> None:
        world = retrained_world()
        old = world.status.served_revision
        world.step()
        world.step()
        plan = world.plan()
        kinds = [type(action).__name__ for action in plan.actions]
        assert kinds == ["ApplyChild", "DeleteChild"]
        assert deletions(plan) == [(ChildKind.DEPLOYMENT, f"dogs-{old}")]

    def test_ready_waits_for_old_servers_to_take_no_more_requests(self) -> None:
        world = retrained_world()
        old = world.status.served_revision
        assert old is not None
        for _ in range(4):
            world.step()
        lingering = make_pod(Component.INFERENCE, old)
        world.see(pods=(*world.observed.pods, lingering))
        assert "earlier revisions still run" in message_of(world.plan(), ConditionType.READY)
        world.see(
            pods=tuple(
                replace(pod, identity=replace(pod.identity, deleting=True)) if pod is lingering else pod
                for pod in world.observed.pods
            )
        )
        assert reason_of(world.plan(), ConditionType.READY) == "True/Served"

    def test_a_retraining_is_recorded_when_it_is_ready(self) -> None:
        world = retrained_world()
        world.see(now=LATER)
        world.settle()
        assert world.status.retrained_at == "2026-05-04T13:00:00.000Z"
        assert world.status.history[0].revision == world.revision
        assert len(world.status.history) == 2

    def test_a_revision_that_is_superseded_while_it_starts_is_removed(self) -> None:
        world = retrained_world()
        world.step(available=False)
        unwanted = world.revision
        world.edit(model={"seed": 2})
        assert (ChildKind.DEPLOYMENT, f"dogs-{unwanted}") in deletions(world.plan())

    def test_going_back_needs_no_training(self) -> None:
        world = retrained_world()
        world.settle()
        world.edit()
        world.learn()
        world.settle()
        assert (world.status.served_revision, world.status.attempt) == (world.revision, 2)

    def test_ready_mentions_a_pin_that_overrides_the_spec(self) -> None:
        world = settled_world()
        served = world.revision
        world.edit(model={"seed": 1}, pinnedRevision=served)
        world.learn()
        world.settle()
        message = message_of(world.plan(), ConditionType.READY)
        assert message.startswith(f"revision {served} serves all requests (pinned by spec.pinnedRevision; ")

    def test_a_raised_nonce_on_pinned_data_is_a_retraining_without_a_job(self) -> None:
        world = settled_world()
        world.edit(retrainNonce=1)
        world.learn()
        assert lifecycle(world.observed.classifier) is Lifecycle.RETRAINING
        world.see(now=LATER)
        plan = world.step()
        assert plan.actions == ()
        assert (plan.status.retrained_at, plan.status.observed_retrain_nonce) == ("2026-05-04T13:00:00.000Z", 1)
        assert lifecycle(world.observed.classifier) is Lifecycle.READY


class TestFailedRollout:
    def failing(self, **pod: object) -> World:
        world = retrained_world()
        world.step(available=False)
        (new,) = [item for item in world.observed.deployments if item.identity.revision == world.revision]
        dead = replace(new, deadline_exceeded=True)
        others = tuple(item for item in world.observed.deployments if item is not new)
        pods = tuple(item for item in world.observed.pods if item.identity.revision != world.revision)
        failing = make_pod(Component.INFERENCE, world.revision, ready=False, **pod)
        world.see(deployments=(*others, dead), pods=(*pods, failing))
        return world

    def test_it_stalls_and_quotes_the_pod(self) -> None:
        world = self.failing(
            waiting="CrashLoopBackOff: back-off 10s", exit_code=3, termination_message="the artifact is broken"
        )
        plan = world.plan()
        assert reason_of(plan, ConditionType.STALLED) == "True/RolloutFailed"
        message = message_of(plan, ConditionType.STALLED)
        assert "CrashLoopBackOff: back-off 10s; it ended with exit code 3; the artifact is broken" in message
        assert "not available after 600 s" in message
        assert "change spec.serving" in message

    def test_out_of_memory_is_reported_with_a_remedy(self) -> None:
        world = self.failing(waiting="CrashLoopBackOff", exit_code=137, exit_reason="OOMKilled", memory_limit="32Mi")
        assert "at its limit of 32Mi (OOMKilled); raise spec.serving.resources.limits.memory" in message_of(
            world.plan(), ConditionType.STALLED
        )

    def test_the_old_revision_still_serves(self) -> None:
        world = self.failing()
        old = world.status.served_revision
        world.settle()
        assert world.status.served_revision == old
        assert reason_of(world.plan(), ConditionType.AVAILABLE) == "True/Serving"
        assert [item.identity.revision for item in world.observed.deployments] == [old]
        assert lifecycle(world.observed.classifier) is Lifecycle.FAILED

    def test_it_is_not_retried_forever(self) -> None:
        world = self.failing()
        failed = world.revision
        plan = world.step()
        assert (ChildKind.DEPLOYMENT, f"dogs-{failed}") in deletions(plan)
        assert find_applied(world.plan(), ChildKind.DEPLOYMENT) == []

    @pytest.mark.parametrize("change", [{"serving": {"resources": {"limits": {"memory": "4Gi"}}}}, {"retrainNonce": 1}])
    def test_other_resources_or_a_raised_nonce_try_again(self, change: dict[str, object]) -> None:
        world = self.failing()
        world.settle()
        world.edit(model={"seed": 1}, **change)
        world.learn()
        plan = world.plan()
        assert f"dogs-{world.revision}" in [item["metadata"]["name"] for item in find_applied(plan, ChildKind.DEPLOYMENT)]
        assert reason_of(plan, ConditionType.STALLED) is None

    def test_a_deployment_past_its_deadline_is_recreated_for_the_next_try(self) -> None:
        world = self.failing()
        kept = world.observed.deployments
        world.step()
        # The operator was killed before it deleted the failed one, and the nonce was raised since.
        world.see(deployments=kept)
        world.edit(model={"seed": 1}, retrainNonce=1)
        world.learn()
        plan = world.plan()
        assert (ChildKind.DEPLOYMENT, f"dogs-{world.revision}") in deletions(plan)
        assert reason_of(plan, ConditionType.STALLED) is None

    def test_an_unschedulable_pod_is_reported_before_the_deadline(self) -> None:
        world = retrained_world()
        world.step(available=False)
        pods = tuple(item for item in world.observed.pods if item.identity.revision != world.revision)
        waiting = make_pod(Component.INFERENCE, world.revision, ready=False, unschedulable="0/1 nodes are available.")
        world.see(pods=(*pods, waiting))
        plan = world.plan()
        assert reason_of(plan, ConditionType.READY) == "False/Unschedulable"
        assert "0/1 nodes are available" in message_of(plan, ConditionType.READY)
        assert reason_of(plan, ConditionType.STALLED) is None

    def test_a_deployment_that_the_api_server_calls_invalid_stalls(self) -> None:
        world = retrained_world()
        (desired,) = [
            item for item in find_applied(world.plan(), ChildKind.DEPLOYMENT) if world.revision in item["metadata"]["name"]
        ]
        world.refuse(hash_annotation(desired), "must be less than its limit", invalid=True)
        plan = world.plan()
        assert reason_of(plan, ConditionType.STALLED) == "True/RolloutFailed"
        assert "must be less than its limit; correct spec.serving" in message_of(plan, ConditionType.STALLED)
        assert plan.status.served_revision != world.revision


class TestServingChanges:
    def test_scaling_leaves_the_lifecycle_ready(self) -> None:
        world = settled_world()
        world.edit(serving={"replicas": 3})
        world.learn()
        plan = world.step(available=False)
        assert [item["spec"]["replicas"] for item in find_applied(plan, ChildKind.DEPLOYMENT)] == [3]
        assert lifecycle(world.observed.classifier) is Lifecycle.READY

    def test_earlier_servers_are_counted_separately_while_new_ones_are_unschedulable(self) -> None:
        world = settled_world(serving={"replicas": 2})
        (deployment,) = world.observed.deployments
        waiting = make_pod(
            Component.INFERENCE, world.revision, name="new", ready=False, unschedulable="0/1 nodes are available."
        )
        rolling = replace(deployment, complete=False, replicas_available=2, replicas_outdated=2)
        world.see(deployments=(rolling,), pods=(*world.observed.pods, waiting))
        message = message_of(world.plan(), ConditionType.READY)
        assert message.startswith("0 of 2 updated inference servers are ready, and 2 earlier ones still run: no node")
        assert message.endswith("; lower spec.serving.resources, change its nodeSelector or tolerations, or add a node")

    def test_a_disruption_budget_exists_only_above_one_replica(self) -> None:
        world = settled_world(serving={"replicas": 2})
        assert len(world.observed.disruption_budgets) == 1
        world.edit(serving={"replicas": 1})
        world.learn()
        assert (ChildKind.DISRUPTION_BUDGET, "dogs") in deletions(world.plan())

    def test_an_autoscaler_exists_only_if_the_spec_has_one(self) -> None:
        world = settled_world(serving={"autoscaling": {"maxReplicas": 4}})
        assert len(world.observed.autoscalers) == 1
        world.edit()
        world.learn()
        assert (ChildKind.AUTOSCALER, "dogs") in deletions(world.plan())

    def test_replicas_set_by_the_autoscaler_are_kept(self) -> None:
        world = settled_world(serving={"autoscaling": {"maxReplicas": 4}})
        (deployment,) = world.observed.deployments
        content = deployment.child.content.replace(b'"replicas": 1', b'"replicas": 3')
        scaled = replace(deployment, replicas_wanted=3, replicas_available=3, child=replace(deployment.child, content=content))
        world.see(deployments=(scaled,))
        assert world.plan().actions == ()

    def test_a_new_revision_starts_at_the_old_ones_replicas(self) -> None:
        spec = {"serving": {"autoscaling": {"maxReplicas": 4}}}
        world = settled_world(**spec)
        (deployment,) = world.observed.deployments
        world.see(deployments=(replace(deployment, replicas_wanted=3, replicas_available=3),))
        world.edit(model={"seed": 1}, **spec)
        world.learn()
        (new,) = [
            item for item in find_applied(world.plan(), ChildKind.DEPLOYMENT) if world.revision in item["metadata"]["name"]
        ]
        assert new["spec"]["replicas"] == 3


class TestDrift:
    def test_a_deployment_scaled_by_hand_is_repaired(self) -> None:
        world = settled_world()
        (deployment,) = world.observed.deployments
        changed = deployment.child.content.replace(b'"replicas": 1', b'"replicas": 0')
        world.see(deployments=(replace(deployment, replicas_wanted=0, child=replace(deployment.child, content=changed)),))
        assert len(find_applied(world.plan(), ChildKind.DEPLOYMENT)) == 1

    def test_a_child_that_a_webhook_rewrites_is_not_applied_forever(self) -> None:
        world = settled_world()
        (deployment,) = world.observed.deployments
        changed = deployment.child.content.replace(b"ocelli-inference:latest", b"mirror/ocelli-inference:latest")
        world.see(deployments=(replace(deployment, child=replace(deployment.child, content=changed)),))
        assert len(world.plan().actions) == 1
        (apply,) = [action for action in world.plan().actions if isinstance(action, ApplyChild)]
        (rewritten,) = world.observed.deployments
        world.see(memory=Memory(applied={deployment.identity.uid: rewritten.child.applied_hash(apply.manifest)}))
        assert world.plan().actions == ()

    def test_after_a_restart_the_annotation_shows_what_a_webhook_rewrote(self) -> None:
        world = settled_world()
        (service,) = world.observed.services
        rewritten = replace(service, content=service.content.replace(b"ClusterIP", b"NodePort"))
        world.see(services=(rewritten,))
        (apply,) = [action for action in world.plan().actions if isinstance(action, ApplyChild)]
        world.see(services=(replace(rewritten, applied_as=rewritten.applied_hash(apply.manifest)),))
        assert world.plan().actions == ()
        assert reason_of(world.plan(), ConditionType.READY) == "True/Served"

    def test_a_change_after_a_webhook_is_repaired(self) -> None:
        world = settled_world()
        (service,) = world.observed.services
        rewritten = replace(service, content=service.content.replace(b"ClusterIP", b"NodePort"))
        world.see(services=(rewritten,))
        (apply,) = [action for action in world.plan().actions if isinstance(action, ApplyChild)]
        changed = replace(rewritten, content=rewritten.content.replace(b"8080", b"9090"))
        world.see(services=(replace(changed, applied_as=rewritten.applied_hash(apply.manifest)),))
        assert len(world.plan().actions) == 1

    def test_autoscaling_causes_no_writes_if_a_webhook_rewrites_the_pods(self) -> None:
        world = settled_world(serving={"autoscaling": {"minReplicas": 1, "maxReplicas": 9}})
        (deployment,) = world.observed.deployments
        changed = deployment.child.content.replace(b"ocelli-inference:latest", b"mirror/ocelli-inference:latest")
        rewritten = replace(deployment.child, content=changed)
        world.see(deployments=(replace(deployment, child=rewritten),))
        (apply,) = [action for action in world.plan().actions if isinstance(action, ApplyChild)]
        rewritten = replace(rewritten, applied_as=rewritten.applied_hash(apply.manifest, autoscaled=True))
        scaled = replace(rewritten, content=changed.replace(b'"replicas": 1', b'"replicas": 4'))
        world.see(deployments=(replace(deployment, child=scaled, replicas_wanted=4, replicas_available=4),))
        assert world.plan().actions == ()

    @pytest.mark.parametrize("kind", ["deployments", "services"])
    def test_a_deleted_child_is_recreated(self, kind: str) -> None:
        world = settled_world()
        world.see(**{kind: ()})
        assert len(world.plan().actions) == 1

    def test_a_change_names_the_uid_of_its_object(self) -> None:
        world = settled_world()
        world.edit(serving={"replicas": 3})
        world.learn()
        (changed, made) = [action for action in world.plan().actions if isinstance(action, ApplyChild)]
        assert (changed.kind, changed.uid) == (ChildKind.DEPLOYMENT, f"uid-dogs-{world.revision}")
        assert (made.kind, made.uid) == (ChildKind.DISRUPTION_BUDGET, None)


class TestForeignObjects:
    """Objects with the Classifier's labels that are not its own."""

    def test_a_child_of_an_earlier_object_of_the_name_is_waited_for(self) -> None:
        world = settled_world()
        (service,) = world.observed.services
        world.see(services=(replace(service, identity=make_identity("clf-dogs", world.revision, owner_uid="uid-earlier")),))
        plan = world.plan()
        assert plan.actions == ()
        assert "belongs to an earlier Classifier of this name" in message_of(plan, ConditionType.READY)
        assert reason_of(plan, ConditionType.STALLED) is None

    def test_a_service_with_copied_labels_is_kept(self) -> None:
        world = settled_world()
        (service,) = world.observed.services
        exposed = replace(service, identity=make_identity("a-copy", world.revision, owner_uid="", owner=("", "")))
        world.see(services=(exposed, service))
        plan = world.plan()
        assert plan.actions == ()
        assert reason_of(plan, ConditionType.READY) == "True/Served"

    def test_a_foreign_deployment_of_another_revision_is_kept(self) -> None:
        world = settled_world()
        (deployment,) = world.observed.deployments
        identity = make_identity("canary", "0123456789", owner_uid="", owner=("", ""))
        world.see(deployments=(deployment, replace(deployment, child=replace(deployment.child, identity=identity))))
        assert world.plan().actions == ()

    @pytest.mark.parametrize(
        ("kind", "name", "field"),
        [
            (ChildKind.SERVICE, "clf-dogs", "services"),
            (ChildKind.AUTOSCALER, "dogs", "autoscalers"),
            (ChildKind.DISRUPTION_BUDGET, "dogs", "disruption_budgets"),
        ],
    )
    def test_one_with_a_needed_name_is_kept_and_reported(self, kind: ChildKind, name: str, field: str) -> None:
        world = settled_world(serving={"autoscaling": {"minReplicas": 2, "maxReplicas": 4}})
        (child,) = getattr(world.observed, field)
        world.see(**{field: (replace(child, identity=make_identity(name, world.revision, owner_uid="", owner=("", ""))),)})
        plan = world.plan()
        assert plan.actions == ()
        assert message_of(plan, ConditionType.READY).startswith(f"{kind} {name} already exists and does not belong to this")
        assert "delete it" in message_of(plan, ConditionType.READY)
        assert reason_of(plan, ConditionType.AVAILABLE) == "True/Serving"

    def test_one_with_an_unneeded_name_is_kept(self) -> None:
        world = settled_world(serving={"replicas": 2})
        (budget,) = world.observed.disruption_budgets
        foreign = replace(budget, identity=make_identity("dogs", world.revision, owner_uid="", owner=("", "")))
        world.edit(serving={"replicas": 1})
        world.learn()
        world.see(disruption_budgets=(foreign,))
        assert deletions(world.plan()) == []

    def test_a_deployment_with_a_needed_name_is_reported(self) -> None:
        world = learned_world()
        world.step()
        (deployment,) = world.observed.deployments
        identity = make_identity(f"dogs-{world.revision}", world.revision, owner_uid="", owner=("", ""))
        world.see(deployments=(replace(deployment, child=replace(deployment.child, identity=identity)),))
        plan = world.plan()
        assert plan.actions == ()
        assert "does not belong to this Classifier" in message_of(plan, ConditionType.READY)
        assert plan.status.served_revision is None

    @pytest.mark.parametrize("owner", [("", ""), ("ReplicaSet", "my-copy-5d4f8c"), ("Job", "dogs")])
    def test_a_pod_with_copied_labels_makes_nothing_available(self, owner: tuple[str, str]) -> None:
        world = settled_world()
        (pod,) = world.observed.pods
        identity = make_identity("copy", world.revision, owner_uid="uid-of-another", owner=owner)
        world.see(pods=(replace(pod, identity=identity),))
        assert reason_of(world.plan(), ConditionType.AVAILABLE) == "False/NoServerReady"


class TestRefusedPods:
    """The Deployment exists, and Kubernetes refuses to create its Pods."""

    def world(self, refusal: str) -> World:
        world = retrained_world()
        world.step(available=False)
        deployments = tuple(
            replace(item, pod_refusal=refusal) if item.identity.revision == world.revision else item
            for item in world.observed.deployments
        )
        world.see(
            deployments=deployments,
            pods=tuple(pod for pod in world.observed.pods if pod.identity.revision != world.revision),
        )
        return world

    def test_an_exceeded_quota_is_quoted_with_a_remedy(self) -> None:
        world = self.world('pods "dogs-x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=3, limited: pods=3')
        plan = world.plan()
        assert reason_of(plan, ConditionType.READY) == "False/RollingOut"
        assert message_of(plan, ConditionType.READY).endswith(
            f": Deployment dogs-{world.revision} waits for quota: exceeded quota: team, requested: pods=1, used: pods=3, "
            "limited: pods=3; raise the quota, or delete objects that count against it"
        )
        assert reason_of(plan, ConditionType.STALLED) is None

    def test_a_webhook_is_quoted(self) -> None:
        world = self.world('admission webhook "no.test" denied the request: not today')
        message = message_of(world.plan(), ConditionType.READY)
        assert (
            'waits for admission: admission webhook "no.test" denied the request: not today; have the policy allow it'
            in message
        )


class TestOutage:
    def test_without_a_ready_server_it_is_not_available_and_still_ready_in_v3(self) -> None:
        world = settled_world()
        world.see(pods=tuple(replace(pod, ready=False) for pod in world.observed.pods))
        plan = world.step()
        assert reason_of(plan, ConditionType.AVAILABLE) == "False/NoServerReady"
        assert reason_of(plan, ConditionType.READY) == "False/NoServerReady"
        assert reason_of(plan, ConditionType.STALLED) is None
        assert lifecycle(world.observed.classifier) is Lifecycle.READY

    def test_recovery_does_not_count_as_a_retraining(self) -> None:
        world = settled_world()
        pods = world.observed.pods
        world.see(pods=tuple(replace(pod, ready=False) for pod in pods))
        world.step()
        world.see(pods=pods, now=LATER)
        plan = world.step()
        assert reason_of(plan, ConditionType.READY) == "True/Served"
        assert plan.status.retrained_at is None


def test_a_deployment_that_exceeds_a_quota_is_reported_and_sent_again() -> None:
    world = retrained_world()
    served = world.status.served_revision
    (apply,) = [action for action in world.plan().actions if isinstance(action, ApplyChild)]
    world.refuse(apply.manifest_hash, "exceeded quota: deployments")
    plan = world.plan()
    assert apply in plan.actions
    assert reason_of(plan, ConditionType.READY) == "False/RollingOut"
    assert "exceeded quota: deployments" in message_of(plan, ConditionType.READY)
    assert plan.status.served_revision == served
    assert reason_of(plan, ConditionType.STALLED) is None


def test_the_transition_time_changes_only_with_the_status() -> None:
    world = settled_world()
    before = world.status.condition(ConditionType.AVAILABLE)
    world.see(now=LATER)
    world.edit(model={"seed": 1})
    after = world.step().status.condition(ConditionType.AVAILABLE)
    assert before is not None
    assert after is not None
    assert after.last_transition_time == before.last_transition_time


def test_history_keeps_the_served_revision() -> None:
    world = settled_world()
    served = world.revision
    for seed in range(1, 14):
        world.edit(model={"seed": seed})
        world.step()
        world.learn()
        # Each is trained and never becomes ready, so that the first still serves.
        world.step(available=False)
    revisions = [entry.revision for entry in world.status.history]
    assert len(revisions) == 10
    assert served in revisions
    assert revisions[0] == world.revision


class TestLostArtifact:
    def test_ready_reports_it_with_a_remedy(self) -> None:
        world = settled_world()
        world.see(artifact_lost=True)
        plan = world.plan()
        assert reason_of(plan, ConditionType.READY) == "False/ArtifactLost"
        assert "raise spec.retrainNonce to train it again" in message_of(plan, ConditionType.READY)

    def test_running_servers_stay_available(self) -> None:
        world = settled_world()
        world.see(artifact_lost=True)
        plan = world.plan()
        assert reason_of(plan, ConditionType.AVAILABLE) == "True/Serving"
        assert plan.actions == ()
        assert lifecycle(replace(world.observed.classifier, status=plan.status)) is Lifecycle.READY

    def test_one_event_reports_it(self) -> None:
        world = settled_world()
        world.see(artifact_lost=True)
        before = world.status
        world.step()
        reported = [occurrence.reason for occurrence in find_occurrences(before, world.status)]
        assert reported == ["ArtifactLost"]
        assert find_occurrences(world.status, world.plan().status) == ()

    def test_a_restored_artifact_makes_it_ready(self) -> None:
        world = settled_world()
        world.see(artifact_lost=True)
        world.step()
        world.see(artifact_lost=False)
        assert reason_of(world.plan(), ConditionType.READY) == "True/Served"


GUARDED = make_settings(OCELLI_INFERENCE_PEERS='[{"namespaceSelector": {"matchLabels": {"team": "gateways"}}}]')


def guarded_world(**spec: object) -> World:
    """Trained, in an installation with NetworkPolicies; nothing is rolled out yet."""
    world = learned_world(**spec)
    world.settings = GUARDED
    return world


POLICY_PROBLEMS = {
    "quota": " waits for quota: exceeded quota; raise the quota",
    "foreign": " already exists and does not belong to this Classifier; delete it",
    "invalid": ": the API server rejects it as invalid: spec.ingress: Invalid value; correct OCELLI_INFERENCE_PEERS",
}
"""What blocks a NetworkPolicy, and how it is reported."""


def block_network_policy(world: World, problem: str) -> None:
    """From now on the NetworkPolicy cannot be created or changed."""
    kind = ChildKind.NETWORK_POLICY
    (policy,) = [item for item in world.plan().actions if isinstance(item, ApplyChild) and item.kind is kind]
    if problem == "quota":
        world.refuse(policy.manifest_hash, "waits for quota: exceeded quota; raise the quota")
    elif problem == "invalid":
        world.refuse(policy.manifest_hash, "spec.ingress: Invalid value", invalid=True)
    else:
        identity = make_identity("clf-dogs", "", owner_uid="", owner=("", ""))
        world.see(network_policies=(replace(as_child(policy.manifest), identity=identity),))


class TestNetworkPolicy:
    def test_it_is_created_before_the_first_inference_server(self) -> None:
        plan = guarded_world().plan()
        kinds = [action.kind for action in plan.actions if isinstance(action, ApplyChild)]
        assert kinds == [ChildKind.NETWORK_POLICY, ChildKind.DEPLOYMENT]

    def test_it_admits_the_peers_of_the_setting_and_pods_of_the_classifiers_namespace(self) -> None:
        (policy,) = find_applied(guarded_world().plan(), ChildKind.NETWORK_POLICY)
        peers = [peer for rule in policy["spec"]["ingress"] for peer in rule["from"]]
        assert {"podSelector": {}} in peers
        assert {"namespaceSelector": {"matchLabels": {"team": "gateways"}}} in peers

    def test_an_installation_without_peers_creates_none(self) -> None:
        assert find_applied(learned_world().plan(), ChildKind.NETWORK_POLICY) == []

    def test_it_is_deleted_when_the_installation_no_longer_has_peers(self) -> None:
        world = guarded_world()
        world.settle()
        world.settings = make_settings()
        assert deletions(world.plan()) == [(ChildKind.NETWORK_POLICY, "clf-dogs")]

    def test_a_served_classifier_without_one_gets_one(self) -> None:
        world = settled_world()
        world.settings = GUARDED
        (action,) = world.plan().actions
        assert isinstance(action, ApplyChild)
        assert (action.kind, action.uid) == (ChildKind.NETWORK_POLICY, None)

    def test_one_opened_by_hand_is_repaired(self) -> None:
        world = guarded_world()
        world.settle()
        (policy,) = world.observed.network_policies
        world.see(network_policies=(replace(policy, content=policy.content.replace(b'"ingress": [', b'"ingress": [{}, ')),))
        assert len(find_applied(world.plan(), ChildKind.NETWORK_POLICY)) == 1

    def test_a_foreign_one_with_the_name_is_kept_and_reported_and_blocks_new_servers(self) -> None:
        world = guarded_world()
        world.settle()
        (policy,) = world.observed.network_policies
        foreign = replace(policy, identity=make_identity("clf-dogs", "", owner_uid="", owner=("", "")))
        world = guarded_world()
        world.see(network_policies=(foreign,))
        plan = world.plan()
        assert plan.actions == ()
        message = message_of(plan, ConditionType.READY)
        assert message.startswith("NetworkPolicy clf-dogs already exists and does not belong to this Classifier; delete it")

    def test_creating_one_for_running_servers_is_not_a_rollout(self) -> None:
        world = settled_world()
        world.settings = GUARDED
        plan = world.plan()
        assert len(plan.actions) == 1
        assert plan.status == world.status

    @pytest.mark.parametrize("problem", sorted(POLICY_PROBLEMS))
    def test_while_one_is_blocked_the_served_revision_stays_ready_and_reports_it(self, problem: str) -> None:
        world = settled_world()
        world.settings = GUARDED
        block_network_policy(world, problem)
        plan = world.plan()
        assert deletions(plan) == []
        assert reason_of(plan, ConditionType.READY) == "True/Served"
        assert f"; NetworkPolicy clf-dogs{POLICY_PROBLEMS[problem]}" in message_of(plan, ConditionType.READY)
        assert plan.network_policy_blocked

    @pytest.mark.parametrize("problem", sorted(POLICY_PROBLEMS))
    def test_while_one_is_blocked_no_server_of_another_revision_starts(self, problem: str) -> None:
        world = retrained_world()
        world.settings = GUARDED
        block_network_policy(world, problem)
        plan = world.plan()
        assert find_applied(plan, ChildKind.DEPLOYMENT) == []
        assert reason_of(plan, ConditionType.READY) == "False/RollingOut"
        assert message_of(plan, ConditionType.READY).startswith(f"NetworkPolicy clf-dogs{POLICY_PROBLEMS[problem]}")
        assert reason_of(plan, ConditionType.AVAILABLE) == "True/Serving"

    def test_one_that_cannot_be_changed_blocks_nothing(self) -> None:
        world = guarded_world()
        world.settle()
        world.settings = make_settings(OCELLI_INFERENCE_PEERS='[{"podSelector": {}}]')
        block_network_policy(world, "quota")
        assert reason_of(world.plan(), ConditionType.READY) == "True/Served"

    def test_a_waiting_upgrade_is_reported_with_it(self) -> None:
        world = settled_world()
        world.settings = make_settings(
            OCELLI_INFERENCE_PEERS='[{"podSelector": {}}]', OCELLI_INFERENCE_IMAGE="registry.test/inference:next"
        )
        block_network_policy(world, "quota")
        world.see(allowed_starts=frozenset())
        message = message_of(world.plan(), ConditionType.READY)
        assert "; NetworkPolicy clf-dogs waits for quota" in message
        assert f"; Deployment dogs-{world.revision} waits for its turn" in message

    def test_an_up_to_date_one_is_not_blocked(self) -> None:
        world = guarded_world()
        world.settle()
        assert not world.plan().network_policy_blocked

    def test_one_that_the_api_server_calls_invalid_names_the_settings(self) -> None:
        world = guarded_world()
        (policy, _) = [action for action in world.plan().actions if isinstance(action, ApplyChild)]
        world.refuse(policy.manifest_hash, "spec.ingress: Invalid value", invalid=True)
        plan = world.plan()
        assert plan.actions == ()
        message = message_of(plan, ConditionType.READY)
        assert "spec.ingress: Invalid value; correct OCELLI_INFERENCE_PEERS or OCELLI_METRICS_PEERS of the operator" in message
