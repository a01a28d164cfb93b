"""Rollout: which Deployments there should be, which revision serves, and how far the current revision is. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

from ocelli_api.classifier import Accelerator, Manifest
from ocelli_api.conditions import StalledReason
from ocelli_api.pods import deployment_name
from ocelli_operator.actions import Action, ApplyChild, delete_child
from ocelli_operator.children import annotate, is_as_desired, with_hash
from ocelli_operator.failure import Failure, find_last_failure
from ocelli_operator.gates import Judgement
from ocelli_operator.learning import Learning
from ocelli_operator.manifests.autoscaler import build_autoscaler
from ocelli_operator.manifests.disruption_budget import build_disruption_budget, needs_disruption_budget
from ocelli_operator.manifests.inference_deployment import InferenceServers, build_inference_deployment, serving_hash
from ocelli_operator.manifests.metadata import (
    MANIFEST_HASH_ANNOTATION,
    TEMPLATE_HASH_ANNOTATION,
    hash_annotation,
    manifest_hash,
    network_policy_name,
    service_name,
)
from ocelli_operator.manifests.network_policy import build_network_policy
from ocelli_operator.manifests.placement import GpuOffer, placement_hash, resolve_accelerator
from ocelli_operator.manifests.service import build_service
from ocelli_operator.observed import ChildKind, ObservedChild, ObservedDeployment, StartKind
from ocelli_operator.snapshot import Snapshot
from ocelli_operator.status import data_checked, gpu_not_offered_message, refusal_message, trained, turn_message


class RolloutState(Enum):
    """How far a rollout is: of the current revision, or of a change to the Deployment that serves."""

    COMPLETE = auto()
    """Nothing is left to do, or no revision is ready to be rolled out."""
    PROGRESSING = auto()
    """Something is still to be done, or has to change outside Ocelli first."""
    UNSCHEDULABLE = auto()
    """No node can take a Pod of it."""
    FAILED = auto()
    """A person must act."""


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Which revision serves, and how far the current one is."""

    served_revision: str | None
    state: RolloutState = RolloutState.COMPLETE
    message: str = ""
    """Why it is not complete."""
    failure: Failure | None = None
    """Why it failed; None in every other state."""
    begins: frozenset[StartKind] = frozenset()
    """What starts with these actions."""
    waits: frozenset[StartKind] = frozenset()
    """What has to wait for its turn."""
    notes: tuple[str, ...] = ()
    """Changes of the installation that wait while the current revision serves all requests."""
    network_policy_blocked: bool = False
    """The NetworkPolicy cannot be created, or changed, as it should be."""
    actions: tuple[Action, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What to do about one child."""

    actions: tuple[Action, ...] = ()
    blocked_by: str = ""
    """What has to change outside Ocelli first."""
    invalid: str = ""
    """Why the API server called the manifest invalid."""


def plan_rollout(snapshot: Snapshot, learning: Learning, judgement: Judgement) -> Rollout:
    """Which revision serves from now on, and what to do for that."""
    before = snapshot.status.served_revision
    is_ready = learning.artifact is not None and judgement.may_serve
    is_new = is_ready and snapshot.current != before
    switch = _plan_switch(snapshot, before) if is_new else Rollout(served_revision=before)
    wanted = {revision for revision in (before, switch.served_revision) if revision is not None}
    if is_ready and switch.failure is None:
        wanted.add(snapshot.current)
    policy = _plan_network_policy(snapshot) if wanted else _Step()
    name = network_policy_name(snapshot.owner.name)
    policy_missing = bool(policy.blocked_by) and all(item.identity.name != name for item in snapshot.observed.network_policies)
    # The order of the steps is the order of the actions.
    steps: list[_Step] = [_Step(actions=switch.actions)]
    begins: set[StartKind] = set()
    waits: dict[StartKind, str] = {}
    policy_holds_back = False
    for revision in sorted(wanted):
        if _lacks_gpu(snapshot, revision):
            # The existing Deployment stays as it is: it may serve.
            continue
        desired, found = _build_deployment(snapshot, revision), _find_deployment(snapshot, revision)
        if policy_missing and found is None:
            # Every Pod could connect to it. Existing Deployments stay.
            policy_holds_back = True
            steps.append(_Step(blocked_by=policy.blocked_by))
            continue
        step = _apply(snapshot, ChildKind.DEPLOYMENT, desired, None if found is None else found.child)
        start = _find_start(snapshot, revision, desired) if step.actions else None
        if start is None or start in snapshot.observed.allowed_starts:
            steps.append(step)
            begins |= set() if start is None else {start}
        else:
            limit = f"runs at most {snapshot.settings.rollouts_limit} rollouts"
            waits[start] = turn_message(f"Deployment {desired['metadata']['name']}", limit)
    # The address follows status: status first says who serves, and nothing old goes before requests go elsewhere.
    steps += _plan_address(snapshot, before)
    for deployment in snapshot.observed.deployments:
        if deployment.identity.revision not in wanted:
            why = f"revision {deployment.identity.revision} neither serves nor is about to"
            steps.append(_Step(actions=delete_child(ChildKind.DEPLOYMENT, deployment.identity, why)))
    changes = tuple(action for step in steps for action in step.actions)
    notes = [waits[StartKind.UPGRADE]] if StartKind.UPGRADE in waits else []
    if policy.blocked_by and not policy_holds_back:
        notes.append(policy.blocked_by)
    rollout = replace(
        switch,
        begins=frozenset(begins),
        waits=frozenset(waits),
        notes=tuple(notes),
        network_policy_blocked=bool(policy.blocked_by),
        # The NetworkPolicy comes before any server that it protects.
        actions=(*policy.actions, *changes),
    )
    if switch.state is RolloutState.FAILED:
        return rollout
    blocked_by = next((step.blocked_by for step in steps if step.blocked_by), "") or waits.get(StartKind.ROLLOUT)
    if blocked_by:
        return replace(rollout, state=RolloutState.PROGRESSING, message=blocked_by)
    if switch.state is not RolloutState.COMPLETE or before is None:
        return rollout
    invalid = next((step.invalid for step in steps if step.invalid), "")
    state, message = _judge_served(snapshot, before, invalid, changes)
    return replace(rollout, state=state, message=message)


def _plan_network_policy(snapshot: Snapshot) -> _Step:
    """The NetworkPolicy has the same name for all revisions."""
    name, kind = network_policy_name(snapshot.owner.name), ChildKind.NETWORK_POLICY
    found = next((item for item in snapshot.observed.network_policies if item.identity.name == name), None)
    if snapshot.settings.network_peers is None:
        why = "the installation makes no NetworkPolicies"
        return _Step(actions=() if found is None else delete_child(kind, found.identity, why))
    step = _apply(snapshot, kind, with_hash(build_network_policy(snapshot.owner, snapshot.settings.network_peers)), found)
    if not step.invalid:
        return step
    remedy = "correct OCELLI_INFERENCE_PEERS or OCELLI_METRICS_PEERS of the operator"
    return _Step(blocked_by=f"{kind} {name}: the API server rejects it as invalid: {step.invalid}; {remedy}")


def _find_start(snapshot: Snapshot, revision: str, desired: Manifest) -> StartKind | None:
    """What applying a Deployment starts; None if it creates and replaces no Pod, except perhaps by scaling."""
    found = _find_deployment(snapshot, revision)
    if found is None:
        return StartKind.ROLLOUT
    if found.child.has_template(desired):
        return None
    same_spec = found.serving_hash in ("", serving_hash(snapshot.classifier.spec.serving))
    # If some servers are not ready, the change may be what repairs them.
    upgrade = revision == snapshot.status.served_revision and same_spec and found.available
    return StartKind.UPGRADE if upgrade else StartKind.ROLLOUT


def _plan_switch(snapshot: Snapshot, served: str | None) -> Rollout:
    """The current revision is trained and should serve: is its Deployment available, on its way, or past its deadline?"""
    desired = _build_deployment(snapshot, snapshot.current)
    name, hash_ = f"Deployment {desired['metadata']['name']}", hash_annotation(desired)

    def progressing(
        message: str, *, state: RolloutState = RolloutState.PROGRESSING, actions: tuple[Action, ...] = ()
    ) -> Rollout:
        return Rollout(served_revision=served, state=state, message=message, actions=actions)

    def failed(message: str, reason: StalledReason = StalledReason.ROLLOUT_FAILED) -> Rollout:
        spec = snapshot.classifier.spec
        failure = Failure(
            reason=reason,
            message=message,
            data_valid=data_checked(spec),
            trained=trained(spec, snapshot.current, snapshot.observed.artifact),
            rollout_hash=hash_ if reason is StalledReason.ROLLOUT_FAILED else None,
        )
        return Rollout(served_revision=served, state=RolloutState.FAILED, failure=failure)

    if _lacks_gpu(snapshot, snapshot.current):
        return failed(f"{name}: {_describe_missing_gpu()}", StalledReason.GPU_NOT_OFFERED)
    last = snapshot.last_failure
    if last is not None and last.failure.reason == StalledReason.ROLLOUT_FAILED and last.failure.rollout_hash == hash_:
        return failed(last.failure.message)
    refusal = snapshot.observed.memory.refusals.get(hash_)
    if refusal is not None and refusal.invalid:
        return failed(f"{name}: the API server rejects it as invalid: {refusal.message}; correct spec.serving")
    deployment = _find_deployment(snapshot, snapshot.current)
    if deployment is None:
        return progressing(f"{name} is being created")
    if deployment.child.manifest_hash != hash_ or deployment.identity.deleting:
        return progressing(f"{name} is being updated")
    if deployment.available:
        switched = progressing(f"requests are being moved to the inference servers of revision {snapshot.current}")
        return replace(switched, served_revision=snapshot.current)
    state, problem = find_pod_problem(snapshot, snapshot.current)
    if not (deployment.up_to_date and deployment.deadline_exceeded):
        return progressing(_describe_ready(deployment, problem), state=state)
    # A Deployment past its deadline does not get another deadline: it has to be recreated.
    if snapshot.observed.store_error:
        return progressing(
            f"{name} is recreated, because its servers cannot load: {snapshot.observed.store_error}",
            actions=delete_child(ChildKind.DEPLOYMENT, deployment.identity, "the object store was away during its rollout"),
        )
    recorded = find_last_failure(snapshot.status)
    if recorded is not None and recorded.revision == snapshot.current:
        return progressing(
            f"{name} is recreated",
            actions=delete_child(ChildKind.DEPLOYMENT, deployment.identity, "its rollout is tried again"),
        )
    return failed(
        f"{name}: not available after {snapshot.settings.rollout_deadline_seconds} s: "
        f"{problem or 'its inference servers did not become ready'}; "
        "change spec.serving, pin an earlier revision, or raise spec.retrainNonce to try again"
    )


def _judge_served(snapshot: Snapshot, served: str, invalid: str, changes: tuple[Action, ...]) -> tuple[RolloutState, str]:
    """Whether everything about the served revision is as it should be, if no newer one is ready.

    `changes` are the actions that change what serves.
    """
    deployment = _find_deployment(snapshot, served)
    state, problem = find_pod_problem(snapshot, served)
    old = [pod for pod in snapshot.observed.inference_servers if pod.identity.revision != served and pod.takes_requests]
    if _lacks_gpu(snapshot, served):
        return state, f"the inference servers of revision {served} stay as they are: {_describe_missing_gpu()}"
    if invalid:
        return state, f"the API server rejects a change as invalid: {invalid}; correct spec.serving"
    if deployment is None or changes:
        return state, f"the objects that serve revision {served} are being updated"
    if not (deployment.up_to_date and deployment.complete):
        return state, _describe_ready(deployment, problem)
    if old:
        return state, f"{len(old)} inference servers of earlier revisions still run"
    return RolloutState.COMPLETE, ""


def _describe_ready(deployment: ObservedDeployment, problem: str) -> str:
    """How far a rollout is. The servers that it replaces are counted separately, because they serve until it is complete."""
    outdated = deployment.replicas_outdated
    ready = f"{max(deployment.replicas_available - outdated, 0)} of {deployment.replicas_wanted}"
    if outdated:
        counts = f"{ready} updated inference servers are ready, and {outdated} earlier ones still run"
    else:
        counts = f"{ready} inference servers of revision {deployment.identity.revision} are ready"
    return f"{counts}: {problem}" if problem else counts


def _find_deployment(snapshot: Snapshot, revision: str) -> ObservedDeployment | None:
    name = deployment_name(snapshot.owner.name, revision)
    return next((item for item in snapshot.observed.deployments if item.identity.name == name), None)


def find_pod_problem(snapshot: Snapshot, revision: str) -> tuple[RolloutState, str]:
    """Why an inference server of the revision is not ready, with the remedy; empty if nothing is known."""
    deployment = _find_deployment(snapshot, revision)
    if deployment is not None and deployment.pod_refusal:
        message = f"Deployment {deployment.identity.name} {refusal_message(deployment.pod_refusal)}"
        return RolloutState.PROGRESSING, message
    pods = [
        pod
        for pod in snapshot.observed.inference_servers
        if pod.identity.revision == revision and not pod.ready and not pod.identity.deleting
    ]
    for pod in pods:
        if pod.unschedulable:
            remedy = "lower spec.serving.resources, change its nodeSelector or tolerations, or add a node"
            if pod.gpu:
                remedy += ", or set spec.serving.accelerator to CPU"
            message = f"no node can take Pod {pod.identity.name}: {pod.unschedulable.rstrip('.')}; {remedy}"
            return RolloutState.UNSCHEDULABLE, message
    for pod in pods:
        if pod.waiting or pod.exit_code:
            parts = [pod.waiting]
            if pod.exit_reason == "OOMKilled":
                limit = f" at its limit of {pod.memory_limit}" if pod.memory_limit else " at its limit"
                parts.append(f"it ran out of memory{limit} (OOMKilled); raise spec.serving.resources.limits.memory")
            elif pod.exit_code:
                parts.append(f"it ended with exit code {pod.exit_code}")
            parts.append(pod.termination_message.strip())
            return RolloutState.PROGRESSING, f"Pod {pod.identity.name}: {'; '.join(part for part in parts if part)}"
    return RolloutState.PROGRESSING, ""


def _resolve_accelerator(snapshot: Snapshot, revision: str) -> Accelerator:
    """GPU or CPU for the servers of a revision. What `Auto` chose stays, even if the nodes change."""
    offer = GpuOffer(image=snapshot.settings.inference_gpu_image, gpu=snapshot.settings.gpu, nodes=snapshot.observed.gpu_nodes)
    deployment, serving = _find_deployment(snapshot, revision), snapshot.classifier.spec.serving
    kept = None
    if deployment is not None and deployment.placement_hash == placement_hash(serving, snapshot.settings.gpu):
        kept = deployment.accelerator
    return resolve_accelerator(serving, offer, kept)


def _lacks_gpu(snapshot: Snapshot, revision: str) -> bool:
    """Whether servers of the revision would need a GPU, and the installation offers none."""
    return not snapshot.settings.inference_gpu_image and _resolve_accelerator(snapshot, revision) is Accelerator.GPU


def _describe_missing_gpu() -> str:
    return gpu_not_offered_message("spec.serving", "OCELLI_INFERENCE_GPU_IMAGE")


def _build_deployment(snapshot: Snapshot, revision: str) -> Manifest:
    serving = snapshot.classifier.spec.serving
    if serving.autoscaling is None:
        replicas = serving.replicas
    else:
        # The autoscaler decides; a new Deployment starts with as many as the old one has now.
        like = _find_deployment(snapshot, revision) or _find_deployment(snapshot, snapshot.status.served_revision or "")
        current = like.replicas_wanted if like is not None else serving.autoscaling.min_replicas
        replicas = min(max(current, serving.autoscaling.min_replicas), serving.autoscaling.max_replicas)
    servers = InferenceServers(
        revision=revision,
        replicas=replicas,
        accelerator=_resolve_accelerator(snapshot, revision),
        artifact_digest=_find_artifact_digest(snapshot, revision),
    )
    manifest = build_inference_deployment(snapshot.owner, snapshot.settings, servers)
    hashed = manifest
    if serving.autoscaling is not None:
        hashed = {**manifest, "spec": {key: value for key, value in manifest["spec"].items() if key != "replicas"}}
    # Added after hashing, so that Deployments of an earlier release are not rewritten only for this annotation.
    template_hash = manifest_hash(manifest["spec"]["template"])
    return annotate(
        annotate(manifest, MANIFEST_HASH_ANNOTATION, manifest_hash(hashed)), TEMPLATE_HASH_ANNOTATION, template_hash
    )


def _find_artifact_digest(snapshot: Snapshot, revision: str) -> str:
    """The digest of a revision's artifact as it was when its training ended; empty if it is not known."""
    artifact = snapshot.observed.artifact
    if artifact is not None and artifact.revision == revision and artifact.artifact_digest:
        # Also before it is in the history, so that the Deployment is not updated for that.
        return artifact.artifact_digest
    return next((item.artifact_digest or "" for item in snapshot.status.history if item.revision == revision), "")


def _plan_address(snapshot: Snapshot, served: str | None) -> list[_Step]:
    """Service, autoscaler and disruption budget of the revision that status says is served."""
    observed, serving, owner = snapshot.observed, snapshot.classifier.spec.serving, snapshot.owner
    if served is None:
        return []
    # Each keeps its name for the whole life of its Classifier.
    children = (
        (ChildKind.SERVICE, service_name(owner.name), build_service(owner, served), observed.services),
        (
            ChildKind.AUTOSCALER,
            owner.name,
            None if serving.autoscaling is None else build_autoscaler(owner, serving.autoscaling, served),
            observed.autoscalers,
        ),
        (
            ChildKind.DISRUPTION_BUDGET,
            owner.name,
            build_disruption_budget(owner, served) if needs_disruption_budget(serving) else None,
            observed.disruption_budgets,
        ),
    )
    steps: list[_Step] = []
    for kind, name, manifest, candidates in children:
        found = next((child for child in candidates if child.identity.name == name), None)
        if manifest is not None:
            steps.append(_apply(snapshot, kind, with_hash(manifest), found))
        elif found is not None:
            steps.append(_Step(actions=delete_child(kind, found.identity, "spec.serving does not ask for one")))
    return steps


def _apply(snapshot: Snapshot, kind: ChildKind, manifest: Manifest, found: ObservedChild | None) -> _Step:
    """Create the child, or bring it to its manifest where it differs."""
    name, memory = manifest["metadata"]["name"], snapshot.observed.memory
    # The end of an object that has the name, or is being deleted, triggers another reconcile.
    conflict = snapshot.name_conflicts.get((kind, name))
    if conflict is not None:
        return _Step(blocked_by=conflict)
    if found is not None and (found.identity.deleting or is_as_desired(snapshot, manifest, found)):
        return _Step()
    action = ApplyChild(kind=kind, manifest=manifest, uid=None if found is None else found.identity.uid)
    refusal = memory.refusals.get(action.manifest_hash)
    if refusal is None:
        return _Step(actions=(action,))
    if refusal.invalid:
        return _Step(invalid=refusal.message)
    return _Step(actions=(action,), blocked_by=f"{kind} {name} {refusal.message}")
