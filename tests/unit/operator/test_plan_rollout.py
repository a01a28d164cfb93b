"""Which Deployments should there be, and who answers? The switch between revisions, and what may go wrong with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ocelli_api.classifier import AccuracyInterval
from ocelli_api.conditions import ConditionType
from ocelli_api.lifecycle import Lifecycle, lifecycle
from ocelli_api.pods import Component
from ocelli_operator.actions import ApplyChild, DeleteChild
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
    settled_world,
)


def reason_of(plan: Plan, condition_type: ConditionType) -> str | None:
    condition = plan.status.condition(condition_type)
    return None if condition is None else f"{condition.status}/{condition.reason}"


def message_of(plan: Plan, condition_type: ConditionType) -> str:
    condition = plan.status.condition(condition_type)
    assert condition is not None
    return condition.message


def deletions(plan: Plan) -> list[tuple[ChildKind, str]]:
    return [(action.kind, action.identity.name) for action in plan.actions if isinstance(action, DeleteChild)]


def learned_world(**spec: object) -> World:
    world = World(**spec)
    world.step()
    world.learn()
    return world


def retrained_world(**spec: object) -> World:
    """Settled, then edited and learned again; nothing of the new revision is rolled out yet."""
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

    def test_the_figures_of_what_is_served_are_those_of_its_artifact(self) -> None:
        status = settled_world().status
        for measured in (status, status.history[0]):
            assert (measured.accuracy, measured.judged_images) == ("0.934", 100)
            assert measured.accuracy_interval == AccuracyInterval(lower="0.871", upper="0.967")

    def test_a_first_training_is_no_retraining(self) -> None:
        assert settled_world().status.retrained_at is None

    def test_a_settled_pass_does_nothing(self) -> None:
        world = settled_world()
        world.see(now=LATER)
        plan = world.plan()
        assert (plan.actions, plan.status, plan.requeue_after_seconds) == ((), world.status, None)


class TestNextRevision:
    def test_the_old_revision_goes_on_serving_while_the_new_one_comes_up(self) -> None:
        world = retrained_world()
        old = world.status.served_revision
        plan = world.step(available=False)
        assert plan.status.served_revision == old
        assert deletions(plan) == []
        assert reason_of(plan, ConditionType.AVAILABLE) == "True/Serving"
        assert lifecycle(world.observed.classifier) is Lifecycle.RETRAINING

    def test_nothing_old_goes_in_the_pass_of_the_switch(self) -> None:
        world = retrained_world()
        world.step()
        plan = world.step()
        assert plan.status.served_revision == world.revision
        assert deletions(plan) == []

    def test_the_address_moves_before_the_old_deployment_goes(self) -> None:
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

    def test_a_retraining_is_noted_when_it_is_ready(self) -> None:
        world = retrained_world()
        world.see(now=LATER)
        world.settle()
        assert world.status.retrained_at == "2026-05-04T13:00:00.000Z"
        assert world.status.history[0].revision == world.revision
        assert len(world.status.history) == 2

    def test_a_revision_that_is_wanted_no_more_while_it_comes_up_is_removed(self) -> None:
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

    def test_a_pin_that_keeps_spec_from_being_followed_is_told(self) -> None:
        world = settled_world()
        served = world.revision
        world.edit(model={"seed": 1}, pinnedRevision=served)
        world.learn()
        world.settle()
        told = message_of(world.plan(), ConditionType.READY)
        assert told.startswith(f"revision {served} answers every request (pinned by spec.pinnedRevision; ")

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
        trouble = make_pod(Component.INFERENCE, world.revision, ready=False, **pod)
        world.see(deployments=(*others, dead), pods=(*pods, trouble))
        return world

    def test_it_stalls_with_the_pods_own_words(self) -> None:
        world = self.failing(
            waiting="CrashLoopBackOff: back-off 10s", exit_code=3, termination_message="the artifact is broken"
        )
        plan = world.plan()
        assert reason_of(plan, ConditionType.STALLED) == "True/RolloutFailed"
        message = message_of(plan, ConditionType.STALLED)
        assert "CrashLoopBackOff: back-off 10s; it ended with exit code 3; the artifact is broken" in message
        assert "not available within 600 seconds" in message
        assert "change spec.serving" in message

    def test_want_of_memory_is_told_with_its_remedy(self) -> None:
        world = self.failing(waiting="CrashLoopBackOff", exit_code=137, exit_reason="OOMKilled", memory_limit="32Mi")
        assert "at its limit of 32Mi; raise spec.serving.resources.limits.memory" in message_of(
            world.plan(), ConditionType.STALLED
        )

    def test_the_old_revision_goes_on_serving(self) -> None:
        world = self.failing()
        old = world.status.served_revision
        world.settle()
        assert world.status.served_revision == old
        assert reason_of(world.plan(), ConditionType.AVAILABLE) == "True/Serving"
        assert [item.identity.revision for item in world.observed.deployments] == [old]
        assert lifecycle(world.observed.classifier) is Lifecycle.FAILED

    def test_nothing_restarts_for_ever(self) -> None:
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

    def test_a_deployment_past_its_deadline_is_made_anew_when_it_is_tried_again(self) -> None:
        world = self.failing()
        kept = world.observed.deployments
        world.step()
        # The operator was killed before it removed the failed one, and the nonce was raised meanwhile.
        world.see(deployments=kept)
        world.edit(model={"seed": 1}, retrainNonce=1)
        world.learn()
        plan = world.plan()
        assert (ChildKind.DEPLOYMENT, f"dogs-{world.revision}") in deletions(plan)
        assert reason_of(plan, ConditionType.STALLED) is None

    def test_a_pod_without_a_node_is_told_before_the_deadline(self) -> None:
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
        world.see(refusals={desired["metadata"]["annotations"]["ocelli.dev/manifest-hash"]: "must be less than its limit"})
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

    def test_servers_of_before_are_counted_apart_while_new_ones_find_no_node(self) -> None:
        world = settled_world(serving={"replicas": 2})
        (deployment,) = world.observed.deployments
        waiting = make_pod(
            Component.INFERENCE, world.revision, name="new", ready=False, unschedulable="0/1 nodes are available."
        )
        rolling = replace(deployment, complete=False, replicas_available=2, replicas_outdated=2)
        world.see(deployments=(rolling,), pods=(*world.observed.pods, waiting))
        told = message_of(world.plan(), ConditionType.READY)
        assert told.startswith(
            "0 of 2 inference servers as spec.serving now asks for are ready; 2 earlier ones still run: no node"
        )
        assert told.endswith("; lower spec.serving.resources, change its nodeSelector or tolerations, or add a node")

    def test_a_disruption_budget_is_there_above_one_replica_only(self) -> None:
        world = settled_world(serving={"replicas": 2})
        assert len(world.observed.disruption_budgets) == 1
        world.edit(serving={"replicas": 1})
        world.learn()
        assert (ChildKind.DISRUPTION_BUDGET, "dogs") in deletions(world.plan())

    def test_an_autoscaler_is_there_where_it_is_asked_for_only(self) -> None:
        world = settled_world(serving={"autoscaling": {"maxReplicas": 4}})
        assert len(world.observed.autoscalers) == 1
        world.edit()
        world.learn()
        assert (ChildKind.AUTOSCALER, "dogs") in deletions(world.plan())

    def test_what_the_autoscaler_decided_is_left_alone(self) -> None:
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
    def test_a_deployment_that_somebody_scaled_is_repaired(self) -> None:
        world = settled_world()
        (deployment,) = world.observed.deployments
        changed = deployment.child.content.replace(b'"replicas": 1', b'"replicas": 0')
        world.see(deployments=(replace(deployment, replicas_wanted=0, child=replace(deployment.child, content=changed)),))
        assert len(find_applied(world.plan(), ChildKind.DEPLOYMENT)) == 1

    def test_what_a_webhook_rewrites_is_not_applied_for_ever(self) -> None:
        world = settled_world()
        (deployment,) = world.observed.deployments
        changed = deployment.child.content.replace(b"ocelli-inference:latest", b"mirror/ocelli-inference:latest")
        world.see(deployments=(replace(deployment, child=replace(deployment.child, content=changed)),))
        assert len(world.plan().actions) == 1
        (apply,) = [action for action in world.plan().actions if isinstance(action, ApplyChild)]
        (rewritten,) = world.observed.deployments
        world.see(applied={deployment.identity.uid: rewritten.child.came_to(apply.manifest)})
        assert world.plan().actions == ()

    def test_what_a_webhook_rewrote_is_known_after_a_restart_by_its_annotation(self) -> None:
        world = settled_world()
        (service,) = world.observed.services
        rewritten = replace(service, content=service.content.replace(b"ClusterIP", b"NodePort"), generation=0)
        world.see(services=(rewritten,))
        (apply,) = [action for action in world.plan().actions if isinstance(action, ApplyChild)]
        world.see(services=(replace(rewritten, applied_as=rewritten.came_to(apply.manifest)),))
        assert world.plan().actions == ()
        assert reason_of(world.plan(), ConditionType.READY) == "True/Served"

    def test_what_is_changed_after_a_webhook_rewrote_it_is_repaired(self) -> None:
        world = settled_world()
        (service,) = world.observed.services
        rewritten = replace(service, content=service.content.replace(b"ClusterIP", b"NodePort"))
        world.see(services=(rewritten,))
        (apply,) = [action for action in world.plan().actions if isinstance(action, ApplyChild)]
        changed = replace(rewritten, content=rewritten.content.replace(b"8080", b"9090"))
        world.see(services=(replace(changed, applied_as=rewritten.came_to(apply.manifest)),))
        assert len(world.plan().actions) == 1

    def test_steps_of_an_autoscaler_cause_no_writes_where_a_webhook_rewrites_the_pods(self) -> None:
        world = settled_world(serving={"autoscaling": {"minReplicas": 1, "maxReplicas": 9}})
        (deployment,) = world.observed.deployments
        changed = deployment.child.content.replace(b"ocelli-inference:latest", b"mirror/ocelli-inference:latest")
        rewritten = replace(deployment.child, content=changed)
        world.see(deployments=(replace(deployment, child=rewritten),))
        (apply,) = [action for action in world.plan().actions if isinstance(action, ApplyChild)]
        rewritten = replace(rewritten, applied_as=rewritten.came_to(apply.manifest, autoscaled=True))
        scaled = replace(rewritten, content=changed.replace(b'"replicas": 1', b'"replicas": 4'))
        world.see(deployments=(replace(deployment, child=scaled, replicas_wanted=4, replicas_available=4),))
        assert world.plan().actions == ()

    @pytest.mark.parametrize("kind", ["deployments", "services"])
    def test_what_somebody_deleted_comes_back(self, kind: str) -> None:
        world = settled_world()
        world.see(**{kind: ()})
        assert len(world.plan().actions) == 1

    def test_a_change_names_the_object_that_it_is_meant_for(self) -> None:
        world = settled_world()
        world.edit(serving={"replicas": 3})
        world.learn()
        (changed, made) = [action for action in world.plan().actions if isinstance(action, ApplyChild)]
        assert (changed.kind, changed.uid) == (ChildKind.DEPLOYMENT, f"uid-dogs-{world.revision}")
        assert (made.kind, made.uid) == (ChildKind.DISRUPTION_BUDGET, None)


class TestForeignObjects:
    """Objects that carry the Classifier's labels and are not its own."""

    def test_a_child_of_an_earlier_object_of_the_name_is_waited_for(self) -> None:
        world = settled_world()
        (service,) = world.observed.services
        world.see(services=(replace(service, identity=make_identity("clf-dogs", world.revision, owner_uid="uid-earlier")),))
        plan = world.plan()
        assert plan.actions == ()
        assert "belongs to an earlier Classifier of this name" in message_of(plan, ConditionType.READY)
        assert reason_of(plan, ConditionType.STALLED) is None

    def test_a_service_that_copies_the_labels_survives(self) -> None:
        world = settled_world()
        (service,) = world.observed.services
        exposed = replace(service, identity=make_identity("a-copy", world.revision, owner_uid="", owner=("", "")))
        world.see(services=(exposed, service))
        plan = world.plan()
        assert plan.actions == ()
        assert reason_of(plan, ConditionType.READY) == "True/Served"

    def test_a_deployment_of_another_revision_survives(self) -> None:
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
    def test_one_of_the_name_that_is_needed_is_left_alone_and_told(self, kind: ChildKind, name: str, field: str) -> None:
        world = settled_world(serving={"autoscaling": {"minReplicas": 2, "maxReplicas": 4}})
        (child,) = getattr(world.observed, field)
        world.see(**{field: (replace(child, identity=make_identity(name, world.revision, owner_uid="", owner=("", ""))),)})
        plan = world.plan()
        assert plan.actions == ()
        assert message_of(plan, ConditionType.READY).startswith(f"{kind} {name} is there already and does not belong to this")
        assert "delete it" in message_of(plan, ConditionType.READY)
        assert reason_of(plan, ConditionType.AVAILABLE) == "True/Serving"

    def test_one_that_is_not_wanted_is_not_deleted(self) -> None:
        world = settled_world(serving={"replicas": 2})
        (budget,) = world.observed.disruption_budgets
        foreign = replace(budget, identity=make_identity("dogs", world.revision, owner_uid="", owner=("", "")))
        world.edit(serving={"replicas": 1})
        world.learn()
        world.see(disruption_budgets=(foreign,))
        assert deletions(world.plan()) == []

    def test_a_deployment_of_the_name_that_is_needed_is_told(self) -> None:
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
        identity = make_identity("copy", world.revision, owner_uid="somebody", owner=owner)
        world.see(pods=(replace(pod, identity=identity),))
        assert reason_of(world.plan(), ConditionType.AVAILABLE) == "False/NoServerReady"


class TestRefusedPods:
    """The Deployment is there, and Kubernetes makes no Pods for it."""

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

    def test_a_quota_is_told_in_kubernetes_own_words_with_a_remedy(self) -> None:
        world = self.world('pods "dogs-x" is forbidden: exceeded quota: team, requested: pods=1, used: pods=3, limited: pods=3')
        plan = world.plan()
        assert reason_of(plan, ConditionType.READY) == "False/RollingOut"
        assert message_of(plan, ConditionType.READY).endswith(
            f": Deployment dogs-{world.revision} waits for room: exceeded quota: team, requested: pods=1, used: pods=3, "
            "limited: pods=3; raise the quota or delete what uses it"
        )
        assert reason_of(plan, ConditionType.STALLED) is None

    def test_a_webhook_is_told_in_its_own_words(self) -> None:
        world = self.world('admission webhook "no.test" denied the request: not today')
        told = message_of(world.plan(), ConditionType.READY)
        assert 'waits to be admitted: admission webhook "no.test" denied the request: not today; have it allowed' in told


class TestOutage:
    def test_without_a_ready_server_it_is_not_available_and_still_ready_in_v3(self) -> None:
        world = settled_world()
        world.see(pods=tuple(replace(pod, ready=False) for pod in world.observed.pods))
        plan = world.step()
        assert reason_of(plan, ConditionType.AVAILABLE) == "False/NoServerReady"
        assert reason_of(plan, ConditionType.READY) == "False/NoServerReady"
        assert reason_of(plan, ConditionType.STALLED) is None
        assert lifecycle(world.observed.classifier) is Lifecycle.READY

    def test_it_recovers_without_a_new_retraining_time(self) -> None:
        world = settled_world()
        pods = world.observed.pods
        world.see(pods=tuple(replace(pod, ready=False) for pod in pods))
        world.step()
        world.see(pods=pods, now=LATER)
        plan = world.step()
        assert reason_of(plan, ConditionType.READY) == "True/Served"
        assert plan.status.retrained_at is None


def test_a_deployment_that_a_quota_has_no_room_for_is_told_and_sent_again() -> None:
    world = retrained_world()
    served = world.status.served_revision
    (apply,) = [action for action in world.plan().actions if isinstance(action, ApplyChild)]
    world.see(hindrances={apply.manifest_hash: "exceeded quota: deployments; raise the quota"})
    plan = world.plan()
    assert apply in plan.actions
    assert reason_of(plan, ConditionType.READY) == "False/RollingOut"
    assert "exceeded quota: deployments; raise the quota" in message_of(plan, ConditionType.READY)
    assert plan.status.served_revision == served
    assert reason_of(plan, ConditionType.STALLED) is None


def test_the_transition_time_moves_only_with_the_status() -> None:
    world = settled_world()
    before = world.status.condition(ConditionType.AVAILABLE)
    world.see(now=LATER)
    world.edit(model={"seed": 1})
    after = world.step().status.condition(ConditionType.AVAILABLE)
    assert before is not None
    assert after is not None
    assert after.last_transition_time == before.last_transition_time


def test_history_keeps_what_is_served() -> None:
    world = settled_world()
    served = world.revision
    for seed in range(1, 14):
        world.edit(model={"seed": seed})
        world.step()
        world.learn()
        # Each is learned and never comes up, so that the first goes on serving.
        world.step(available=False)
    revisions = [entry.revision for entry in world.status.history]
    assert len(revisions) == 10
    assert served in revisions
    assert revisions[0] == world.revision


class TestLostArtifact:
    def test_ready_says_so_with_the_remedy(self) -> None:
        world = settled_world()
        world.see(artifact_lost=True)
        plan = world.plan()
        assert reason_of(plan, ConditionType.READY) == "False/ArtifactLost"
        assert "raise spec.retrainNonce to train it again" in message_of(plan, ConditionType.READY)

    def test_the_servers_that_run_go_on_answering(self) -> None:
        world = settled_world()
        world.see(artifact_lost=True)
        plan = world.plan()
        assert reason_of(plan, ConditionType.AVAILABLE) == "True/Serving"
        assert plan.actions == ()
        assert lifecycle(replace(world.observed.classifier, status=plan.status)) is Lifecycle.READY

    def test_it_is_told_by_an_event_once(self) -> None:
        world = settled_world()
        world.see(artifact_lost=True)
        before = world.status
        world.step()
        told = [occurrence.reason for occurrence in find_occurrences(before, world.status)]
        assert told == ["ArtifactLost"]
        assert find_occurrences(world.status, world.plan().status) == ()

    def test_an_artifact_that_is_put_back_makes_it_ready(self) -> None:
        world = settled_world()
        world.see(artifact_lost=True)
        world.step()
        world.see(artifact_lost=False)
        assert reason_of(world.plan(), ConditionType.READY) == "True/Served"


GUARDED = make_settings(OCELLI_INFERENCE_PEERS='[{"namespaceSelector": {"matchLabels": {"team": "gateways"}}}]')


def guarded_world(**spec: object) -> World:
    """Learned, in an installation that makes NetworkPolicies; nothing is rolled out yet."""
    world = learned_world(**spec)
    world.settings = GUARDED
    return world


POLICY_TROUBLES = {
    "quota": " waits for room: exceeded quota; raise the quota",
    "foreign": " is there already and does not belong to this Classifier; delete it",
    "invalid": ": the API server refuses it: spec.ingress: Invalid value; correct OCELLI_INFERENCE_PEERS",
}
"""What keeps a NetworkPolicy from being made, and how that is told."""


def block_network_policy(world: World, trouble: str) -> None:
    """From now on the NetworkPolicy cannot be made or changed."""
    kind = ChildKind.NETWORK_POLICY
    (policy,) = [item for item in world.plan().actions if isinstance(item, ApplyChild) and item.kind is kind]
    if trouble == "quota":
        world.see(hindrances={policy.manifest_hash: "waits for room: exceeded quota; raise the quota"})
    elif trouble == "invalid":
        world.see(refusals={policy.manifest_hash: "spec.ingress: Invalid value"})
    else:
        identity = make_identity("clf-dogs", "", owner_uid="", owner=("", ""))
        world.see(network_policies=(replace(as_child(policy.manifest), identity=identity),))


class TestNetworkPolicy:
    def test_it_is_made_before_the_first_inference_server(self) -> None:
        plan = guarded_world().plan()
        kinds = [action.kind for action in plan.actions if isinstance(action, ApplyChild)]
        assert kinds == [ChildKind.NETWORK_POLICY, ChildKind.DEPLOYMENT]

    def test_it_admits_the_peers_of_the_setting_and_pods_of_the_classifiers_namespace(self) -> None:
        (policy,) = find_applied(guarded_world().plan(), ChildKind.NETWORK_POLICY)
        peers = [peer for rule in policy["spec"]["ingress"] for peer in rule["from"]]
        assert {"podSelector": {}} in peers
        assert {"namespaceSelector": {"matchLabels": {"team": "gateways"}}} in peers

    def test_an_installation_without_peers_makes_none(self) -> None:
        assert find_applied(learned_world().plan(), ChildKind.NETWORK_POLICY) == []

    def test_it_goes_when_the_installation_makes_none_any_more(self) -> None:
        world = guarded_world()
        world.settle()
        world.settings = make_settings()
        assert deletions(world.plan()) == [(ChildKind.NETWORK_POLICY, "clf-dogs")]

    def test_one_that_is_served_without_gets_one(self) -> None:
        world = settled_world()
        world.settings = GUARDED
        (action,) = world.plan().actions
        assert isinstance(action, ApplyChild)
        assert (action.kind, action.uid) == (ChildKind.NETWORK_POLICY, None)

    def test_one_that_somebody_opened_is_repaired(self) -> None:
        world = guarded_world()
        world.settle()
        (policy,) = world.observed.network_policies
        world.see(network_policies=(replace(policy, content=policy.content.replace(b'"ingress": [', b'"ingress": [{}, ')),))
        assert len(find_applied(world.plan(), ChildKind.NETWORK_POLICY)) == 1

    def test_a_foreign_one_of_the_name_is_left_alone_and_told_and_no_server_starts_without(self) -> None:
        world = guarded_world()
        world.settle()
        (policy,) = world.observed.network_policies
        foreign = replace(policy, identity=make_identity("clf-dogs", "", owner_uid="", owner=("", "")))
        world = guarded_world()
        world.see(network_policies=(foreign,))
        plan = world.plan()
        assert plan.actions == ()
        told = message_of(plan, ConditionType.READY)
        assert told.startswith("NetworkPolicy clf-dogs is there already and does not belong to this Classifier; delete it")

    def test_making_one_for_what_serves_already_is_no_rollout(self) -> None:
        world = settled_world()
        world.settings = GUARDED
        plan = world.plan()
        assert len(plan.actions) == 1
        assert plan.status == world.status

    @pytest.mark.parametrize("trouble", sorted(POLICY_TROUBLES))
    def test_while_one_is_blocked_what_serves_already_stays_ready_and_says_so(self, trouble: str) -> None:
        world = settled_world()
        world.settings = GUARDED
        block_network_policy(world, trouble)
        plan = world.plan()
        assert deletions(plan) == []
        assert reason_of(plan, ConditionType.READY) == "True/Served"
        assert f"; NetworkPolicy clf-dogs{POLICY_TROUBLES[trouble]}" in message_of(plan, ConditionType.READY)
        assert plan.network_policy_blocked

    @pytest.mark.parametrize("trouble", sorted(POLICY_TROUBLES))
    def test_while_one_is_blocked_no_server_of_another_revision_starts(self, trouble: str) -> None:
        world = retrained_world()
        world.settings = GUARDED
        block_network_policy(world, trouble)
        plan = world.plan()
        assert find_applied(plan, ChildKind.DEPLOYMENT) == []
        assert reason_of(plan, ConditionType.READY) == "False/RollingOut"
        assert message_of(plan, ConditionType.READY).startswith(f"NetworkPolicy clf-dogs{POLICY_TROUBLES[trouble]}")
        assert reason_of(plan, ConditionType.AVAILABLE) == "True/Serving"

    def test_one_that_cannot_be_changed_holds_nothing_back(self) -> None:
        world = guarded_world()
        world.settle()
        world.settings = make_settings(OCELLI_INFERENCE_PEERS='[{"podSelector": {}}]')
        block_network_policy(world, "quota")
        assert reason_of(world.plan(), ConditionType.READY) == "True/Served"

    def test_an_upgrade_that_waits_is_told_with_it(self) -> None:
        world = settled_world()
        world.settings = make_settings(
            OCELLI_INFERENCE_PEERS='[{"podSelector": {}}]', OCELLI_INFERENCE_IMAGE="registry.test/inference:next"
        )
        block_network_policy(world, "quota")
        world.see(allowed_starts=frozenset())
        told = message_of(world.plan(), ConditionType.READY)
        assert "; NetworkPolicy clf-dogs waits for room" in told
        assert f"; Deployment dogs-{world.revision} waits for its turn" in told

    def test_none_is_blocked_where_it_is_as_it_should_be(self) -> None:
        world = guarded_world()
        world.settle()
        assert not world.plan().network_policy_blocked

    def test_one_that_the_api_server_calls_invalid_names_the_settings(self) -> None:
        world = guarded_world()
        (policy, _) = [action for action in world.plan().actions if isinstance(action, ApplyChild)]
        world.see(refusals={policy.manifest_hash: "spec.ingress: Invalid value"})
        plan = world.plan()
        assert plan.actions == ()
        told = message_of(plan, ConditionType.READY)
        assert "spec.ingress: Invalid value; correct OCELLI_INFERENCE_PEERS or OCELLI_METRICS_PEERS of the operator" in told
