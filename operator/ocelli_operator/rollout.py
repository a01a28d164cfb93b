"""Rollout: which Deployments there should be, who answers, and what stands in the way of the current revision. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ocelli_api.classifier import Accelerator, Manifest
from ocelli_api.conditions import ConditionType, StalledReason
from ocelli_api.pods import deployment_name
from ocelli_operator.actions import Action, ApplyChild, delete_child
from ocelli_operator.case import Case
from ocelli_operator.learning import Learning
from ocelli_operator.manifests.autoscaler import build_autoscaler
from ocelli_operator.manifests.disruption_budget import build_disruption_budget, needs_disruption_budget
from ocelli_operator.manifests.inference_deployment import InferenceServers, build_inference_deployment, serving_hash
from ocelli_operator.manifests.metadata import (
    MANIFEST_HASH_ANNOTATION,
    TEMPLATE_HASH_ANNOTATION,
    manifest_hash,
    network_policy_name,
    service_name,
)
from ocelli_operator.manifests.network_policy import build_network_policy
from ocelli_operator.manifests.placement import GpuOffer, placement_hash, resolve_accelerator
from ocelli_operator.manifests.service import build_service
from ocelli_operator.observed import ChildKind, ObservedChild, ObservedDeployment, StartKind
from ocelli_operator.status import Failure, data_checked, learned, tell_gpu_not_offered, tell_refusal, waits_for_turn


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Which revision serves, and what stands between it and being settled."""

    served_revision: str | None
    failure: Failure | None = None
    failed_hash: str | None = None
    obstacle: str = ""
    """Why the rollout is not complete; empty where it is."""
    unschedulable: bool = False
    begins: frozenset[StartKind] = frozenset()
    """What begins with these actions and counts as under way."""
    waits: frozenset[StartKind] = frozenset()
    """What has to wait until it is its turn."""
    notes: tuple[str, ...] = ()
    """What of the installation's own changes waits; every request is answered meanwhile."""
    network_policy_blocked: bool = False
    """The NetworkPolicy cannot be made, or changed, as it should be."""
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Guard:
    """What to do about the NetworkPolicy."""

    actions: tuple[Action, ...] = ()
    trouble: str = ""
    """Why it cannot be as it should be, with the remedy; empty where it can."""
    missing: bool = False
    """It is wanted, and cannot be made."""


def plan_rollout(case: Case, learning: Learning) -> Rollout:
    """Which revision serves after this pass, and what to do for that."""
    served = case.status.served_revision
    if learning.artifact is None or case.current == served:
        rollout = Rollout(served_revision=served)
    else:
        rollout = _plan_switch(case, served)
    wanted = {revision for revision in (served, rollout.served_revision) if revision is not None}
    if learning.artifact is not None and rollout.failure is None:
        wanted.add(case.current)
    guard = _plan_guard(case) if wanted else _Guard()
    holds_back = False
    actions: list[Action] = []
    blocked: list[str] = []
    for revision in sorted(wanted):
        if _asks_for_more_gpu(case, revision):
            # What is there stays as it is: it may serve.
            continue
        desired = _build_deployment(case, revision)
        blocked += _find_in_the_way(case, ChildKind.DEPLOYMENT, desired)
        found_deployment = _find_deployment(case, revision)
        if guard.missing and found_deployment is None:
            # It would be open to every Pod. What is there already goes on.
            holds_back = True
            blocked.append(guard.trouble)
            continue
        applied = _apply(case, ChildKind.DEPLOYMENT, desired, found_deployment)
        start = _find_start(case, revision, desired) if any(isinstance(item, ApplyChild) for item in applied) else None
        if start is None or start in case.observed.allowed_starts:
            actions += applied
            rollout = rollout if start is None else replace(rollout, begins=rollout.begins | {start})
        else:
            rollout = _wait(case, rollout, start, desired["metadata"]["name"])
    # The address follows status: status says who serves first, and nothing old goes before everybody was sent on.
    for kind, manifest, found in _plan_address(case, served):
        if manifest is not None:
            blocked += _find_in_the_way(case, kind, manifest)
            actions += _apply(case, kind, manifest, found)
        elif found is not None:
            actions += delete_child(kind, found.identity, "spec.serving asks for none")
    for deployment in case.observed.deployments:
        if deployment.identity.revision not in wanted:
            why = f"revision {deployment.identity.revision} is neither served nor about to be"
            actions += delete_child(ChildKind.DEPLOYMENT, deployment.identity, why)
    refusal = next((text for action in actions if (text := _refusal(case, action))), "")
    sendable = tuple(action for action in actions if not _refusal(case, action))
    # The guard is not among them: it changes nothing about who answers.
    changes = (*rollout.actions, *sendable)
    if guard.trouble and not holds_back:
        rollout = replace(rollout, notes=(*rollout.notes, guard.trouble))
    # The NetworkPolicy comes before any server that it is for.
    rollout = replace(rollout, actions=(*guard.actions, *changes), network_policy_blocked=bool(guard.trouble))
    if rollout.failure is not None:
        return rollout
    hindrance = next((text for action in sendable if (text := _find_hindrance(case, action))), "")
    if hindrance or blocked:
        return replace(rollout, obstacle=hindrance or blocked[0], unschedulable=False)
    if rollout.obstacle:
        return rollout
    return _judge_rollout(case, rollout, refusal, changes)


def _plan_guard(case: Case) -> _Guard:
    """The NetworkPolicy as it should be: one name for the whole life of the Classifier, whatever it serves."""
    name, kind = network_policy_name(case.owner.name), ChildKind.NETWORK_POLICY
    found = next((item for item in case.observed.network_policies if item.identity.name == name), None)
    if case.settings.network_peers is None:
        why = "the installation makes no NetworkPolicies"
        return _Guard(actions=() if found is None else delete_child(kind, found.identity, why))
    plain = build_network_policy(case.owner, case.settings.network_peers)
    manifest = _with_hash(plain, plain)
    blocked = _find_in_the_way(case, kind, manifest)
    hash_ = manifest["metadata"]["annotations"][MANIFEST_HASH_ANNOTATION]
    if refusal := case.observed.refusals.get(hash_):
        remedy = "correct OCELLI_INFERENCE_PEERS or OCELLI_METRICS_PEERS of the operator"
        return _Guard(trouble=f"{kind} {name}: the API server refuses it: {refusal}; {remedy}", missing=found is None)
    actions = _apply(case, kind, manifest, found)
    hindrances = [text for action in actions if (text := _find_hindrance(case, action))]
    trouble = next(iter((*blocked, *hindrances)), "")
    return _Guard(actions=actions, trouble=trouble, missing=found is None and bool(trouble))


def _find_start(case: Case, revision: str, desired: Manifest) -> StartKind | None:
    """What begins if a Deployment is applied; None where no Pod is made or replaced for it, but perhaps for its scale."""
    found = _find_deployment(case, revision)
    if found is None:
        return StartKind.ROLLOUT
    if found.child.has_template(desired):
        return None
    as_before = found.serving_hash in ("", serving_hash(case.classifier.spec.serving))
    # Servers that are not all ready may be just what the change is to mend.
    upgrade = revision == case.status.served_revision and as_before and found.available
    return StartKind.UPGRADE if upgrade else StartKind.ROLLOUT


def _wait(case: Case, rollout: Rollout, kind: StartKind, name: str) -> Rollout:
    message = waits_for_turn(f"Deployment {name}", f"{case.settings.rollouts_limit} rollouts are under way")
    rollout = replace(rollout, waits=rollout.waits | {kind})
    if kind is StartKind.UPGRADE:
        return replace(rollout, notes=(*rollout.notes, message))
    return rollout if rollout.failure is not None else replace(rollout, obstacle=message, unschedulable=False)


def _plan_switch(case: Case, served: str | None) -> Rollout:
    """A revision that was learned is to serve: is its Deployment ready for that, on its way, or past its deadline?"""
    if _asks_for_more_gpu(case, case.current):
        message = f"Deployment {deployment_name(case.owner.name, case.current)}: {_tell_not_offered()}"
        failure = replace(_failed_rollout(case, message), reason=StalledReason.GPU_NOT_OFFERED)
        return Rollout(served_revision=served, failure=failure)
    desired = _build_deployment(case, case.current)
    desired_hash = desired["metadata"]["annotations"][MANIFEST_HASH_ANNOTATION]
    if case.is_stalled_by(frozenset({StalledReason.ROLLOUT_FAILED})) and case.status.failed_rollout_hash == desired_hash:
        stalled = case.status.condition(ConditionType.STALLED)
        assert stalled is not None
        return Rollout(served_revision=served, failure=_failed_rollout(case, stalled.message), failed_hash=desired_hash)
    refusal = case.observed.refusals.get(desired_hash)
    if refusal is not None:
        message = f"Deployment {desired['metadata']['name']}: the API server refuses it: {refusal}; correct spec.serving"
        return Rollout(served_revision=served, failure=_failed_rollout(case, message), failed_hash=desired_hash)
    deployment = _find_deployment(case, case.current)
    name = desired["metadata"]["name"]
    if deployment is None:
        return Rollout(served_revision=served, obstacle=f"Deployment {name} is made")
    if deployment.child.manifest_hash != desired_hash or deployment.identity.deleting:
        return Rollout(served_revision=served, obstacle=f"Deployment {name} is brought up to date")
    if deployment.available:
        return Rollout(
            served_revision=case.current, obstacle=f"requests are sent on to the inference servers of revision {case.current}"
        )
    trouble, unschedulable = find_trouble(case, case.current)
    if deployment.up_to_date and deployment.deadline_exceeded and case.observed.store_trouble:
        # Its servers load from the store: its time begins anew, as often as needed.
        return Rollout(
            served_revision=served,
            obstacle=f"Deployment {name} is created again, because its servers cannot load: {case.observed.store_trouble}",
            actions=delete_child(ChildKind.DEPLOYMENT, deployment.identity, "the object store was away during its rollout"),
        )
    if deployment.up_to_date and deployment.deadline_exceeded and case.status.failed_revision == case.current:
        # It failed before and is to be tried again: a Deployment past its deadline gets no other one.
        return Rollout(
            served_revision=served,
            obstacle=f"Deployment {name} is created again",
            actions=delete_child(ChildKind.DEPLOYMENT, deployment.identity, "its rollout is tried again"),
        )
    if deployment.up_to_date and deployment.deadline_exceeded:
        told = trouble or "its inference servers did not become ready"
        seconds = case.settings.rollout_deadline_seconds
        message = (
            f"Deployment {name}: not available within {seconds} seconds: {told}; "
            "change spec.serving, pin an earlier revision, or raise spec.retrainNonce to try again"
        )
        return Rollout(served_revision=served, failure=_failed_rollout(case, message), failed_hash=desired_hash)
    counts = _count_ready(deployment)
    return Rollout(served_revision=served, obstacle=f"{counts}: {trouble}" if trouble else counts, unschedulable=unschedulable)


def _judge_rollout(case: Case, rollout: Rollout, refusal: str, changes: tuple[Action, ...]) -> Rollout:
    """The served revision is the right one, or nothing newer is ready: is everything about it as it should be?

    `changes` are the actions that change what serves.
    """
    served = rollout.served_revision
    if served is None:
        return rollout
    deployment = _find_deployment(case, served)
    trouble, unschedulable = find_trouble(case, served)
    old = [pod for pod in case.observed.inference_servers if pod.identity.revision != served and pod.takes_requests]
    if _asks_for_more_gpu(case, served):
        obstacle = f"what serves revision {served} stays as it is: {_tell_not_offered()}"
    elif refusal:
        obstacle = f"the API server refuses a change: {refusal}; correct spec.serving"
    elif deployment is None or changes:
        obstacle = f"what serves revision {served} is brought up to date"
    elif not (deployment.up_to_date and deployment.complete):
        counts = _count_ready(deployment)
        obstacle = f"{counts}: {trouble}" if trouble else counts
    elif old:
        obstacle = f"{len(old)} inference servers of earlier revisions still run"
    else:
        return rollout
    return replace(rollout, obstacle=obstacle, unschedulable=unschedulable)


def _count_ready(deployment: ObservedDeployment) -> str:
    """How far a rollout is: those that it replaces are counted apart, for they answer while it lasts."""
    outdated = deployment.replicas_outdated
    ready = f"{max(deployment.replicas_available - outdated, 0)} of {deployment.replicas_wanted}"
    if not outdated:
        return f"{ready} inference servers of revision {deployment.identity.revision} are ready"
    return f"{ready} inference servers as spec.serving now asks for are ready; {outdated} earlier ones still run"


def _failed_rollout(case: Case, message: str) -> Failure:
    spec = case.classifier.spec
    return Failure(
        reason=StalledReason.ROLLOUT_FAILED,
        message=message,
        data_valid=data_checked(spec),
        trained=learned(spec, case.current, case.observed.artifact),
    )


def _find_deployment(case: Case, revision: str) -> ObservedDeployment | None:
    name = deployment_name(case.owner.name, revision)
    return next((item for item in case.observed.deployments if item.identity.name == name), None)


def find_trouble(case: Case, revision: str) -> tuple[str, bool]:
    """What keeps an inference server of the revision from being ready, in its own words, and whether that is want of a node."""
    deployment = _find_deployment(case, revision)
    if deployment is not None and deployment.pod_refusal:
        return f"Deployment {deployment.identity.name} {tell_refusal(deployment.pod_refusal)}", False
    pods = [
        pod
        for pod in case.observed.inference_servers
        if pod.identity.revision == revision and not pod.ready and not pod.identity.deleting
    ]
    for pod in pods:
        if pod.unschedulable:
            remedy = "lower spec.serving.resources, change its nodeSelector or tolerations, or add a node"
            if pod.gpu:
                remedy += ", or set spec.serving.accelerator to CPU"
            return f"no node can take Pod {pod.identity.name}: {pod.unschedulable.rstrip('.')}; {remedy}", True
    for pod in pods:
        if pod.waiting or pod.exit_code:
            parts = [pod.waiting]
            if pod.exit_reason == "OOMKilled":
                limit = f" of {pod.memory_limit}" if pod.memory_limit else ""
                parts.append(f"it ran out of memory at its limit{limit}; raise spec.serving.resources.limits.memory")
            elif pod.exit_code:
                parts.append(f"it ended with exit code {pod.exit_code}")
            if pod.termination_message.strip():
                parts.append(pod.termination_message.strip())
            return f"Pod {pod.identity.name}: " + "; ".join(part for part in parts if part), False
    return "", False


def _resolve_accelerator(case: Case, revision: str) -> Accelerator:
    """GPU or CPU for the servers of a revision. What `Auto` came to stays, whatever becomes of the nodes."""
    offer = GpuOffer(image=case.settings.inference_gpu_image, gpu=case.settings.gpu, nodes=case.observed.gpu_nodes)
    deployment = _find_deployment(case, revision)
    serving = case.classifier.spec.serving
    kept = None
    if deployment is not None:
        kept = deployment.accelerator if deployment.placement_hash == placement_hash(serving, case.settings.gpu) else None
    return resolve_accelerator(serving, offer, kept)


def _asks_for_more_gpu(case: Case, revision: str) -> bool:
    """Whether servers of the revision would need a GPU, and the installation offers none."""
    return not case.settings.inference_gpu_image and _resolve_accelerator(case, revision) is Accelerator.GPU


def _tell_not_offered() -> str:
    return tell_gpu_not_offered("spec.serving", "OCELLI_INFERENCE_GPU_IMAGE")


def _build_deployment(case: Case, revision: str) -> Manifest:
    serving = case.classifier.spec.serving
    if serving.autoscaling is None:
        replicas = serving.replicas
    else:
        # The autoscaler decides; a new Deployment starts at what the old one has come to.
        like = _find_deployment(case, revision) or _find_deployment(case, case.status.served_revision or "")
        at_hand = like.replicas_wanted if like is not None else serving.autoscaling.min_replicas
        replicas = min(max(at_hand, serving.autoscaling.min_replicas), serving.autoscaling.max_replicas)
    servers = InferenceServers(revision=revision, replicas=replicas, accelerator=_resolve_accelerator(case, revision))
    manifest = build_inference_deployment(case.owner, case.settings, servers)
    hashed = manifest
    if serving.autoscaling is not None:
        hashed = {**manifest, "spec": {key: value for key, value in manifest["spec"].items() if key != "replicas"}}
    # Not part of the manifest's hash: Deployments of an earlier release are not written for the sake of this annotation.
    return _annotate(_with_hash(manifest, hashed), TEMPLATE_HASH_ANNOTATION, manifest_hash(manifest["spec"]["template"]))


def _with_hash(manifest: Manifest, hashed: Manifest) -> Manifest:
    return _annotate(manifest, MANIFEST_HASH_ANNOTATION, manifest_hash(hashed))


def _annotate(manifest: Manifest, name: str, value: str) -> Manifest:
    annotations = {**manifest["metadata"].get("annotations", {}), name: value}
    return {**manifest, "metadata": {**manifest["metadata"], "annotations": annotations}}


def _plan_address(case: Case, served: str | None) -> list[tuple[ChildKind, Manifest | None, ObservedChild | None]]:
    """Service, autoscaler and disruption budget of the revision that status calls served: each as it should be (None: there
    should be none), and as it is."""
    observed, serving = case.observed, case.classifier.spec.serving
    if served is None:
        return []
    service = build_service(case.owner, served)
    autoscaler = None if serving.autoscaling is None else build_autoscaler(case.owner, serving.autoscaling, served)
    budget = build_disruption_budget(case.owner, served) if needs_disruption_budget(serving) else None
    # Each has one name for the whole life of its Classifier.
    return [
        (
            kind,
            None if manifest is None else _with_hash(manifest, manifest),
            next((child for child in found if child.identity.name == name), None),
        )
        for kind, name, manifest, found in (
            (ChildKind.SERVICE, service_name(case.owner.name), service, observed.services),
            (ChildKind.AUTOSCALER, case.owner.name, autoscaler, observed.autoscalers),
            (ChildKind.DISRUPTION_BUDGET, case.owner.name, budget, observed.disruption_budgets),
        )
    ]


def _find_in_the_way(case: Case, kind: ChildKind, manifest: Manifest) -> tuple[str, ...]:
    told = case.observed.in_the_way.get((kind, manifest["metadata"]["name"]))
    return () if told is None else (told,)


def _apply(
    case: Case, kind: ChildKind, manifest: Manifest, found: ObservedChild | ObservedDeployment | None
) -> tuple[Action, ...]:
    child = found.child if isinstance(found, ObservedDeployment) else found
    if _find_in_the_way(case, kind, manifest):
        # Its end wakes this Classifier again.
        return ()
    if child is None:
        return (ApplyChild(kind=kind, manifest=manifest),)
    if child.identity.deleting:
        # What is on its way out can't be brought back; its end wakes this Classifier again.
        return ()
    if child.manifest_hash == manifest["metadata"]["annotations"][MANIFEST_HASH_ANNOTATION]:
        settled = (child.applied_as, case.observed.applied.get(child.identity.uid))
        autoscaled = case.classifier.spec.serving.autoscaling is not None
        if child.matches(manifest) or child.came_to(manifest, autoscaled=autoscaled) in settled:
            return ()
    return (ApplyChild(kind=kind, manifest=manifest, uid=child.identity.uid),)


def _refusal(case: Case, action: Action) -> str:
    return case.observed.refusals.get(action.manifest_hash, "") if isinstance(action, ApplyChild) else ""


def _find_hindrance(case: Case, action: Action) -> str:
    if not isinstance(action, ApplyChild) or action.manifest_hash not in case.observed.hindrances:
        return ""
    return f"{action.kind} {action.manifest['metadata']['name']} {case.observed.hindrances[action.manifest_hash]}"
