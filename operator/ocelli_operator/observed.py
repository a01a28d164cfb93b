"""What the operator reads: Jobs, Deployments, Pods and other children with the fields that decisions need, and everything known
of one Classifier at one moment. Pure: manifests in, frozen values out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from ocelli_api.classifier import Accelerator, Classifier, Manifest
from ocelli_api.classifier_status import HistoryEntry
from ocelli_api.outcome import Outcome, ProgressReport, parse_termination_message
from ocelli_api.pods import (
    ACCELERATOR_LABEL,
    CLASSIFIER_LABEL,
    COMPONENT_LABEL,
    INFERENCE_CONTAINER,
    REVISION_LABEL,
    STEP_LABEL,
    TRAINER_CONTAINER,
    Component,
    TrainingStep,
    find_controller,
)
from ocelli_api.quantities import parse_quantity
from ocelli_operator.kueue import KueueAdmission
from ocelli_operator.manifests.metadata import (
    APPLIED_AS_ANNOTATION,
    ATTEMPT_LABEL,
    MANIFEST_HASH_ANNOTATION,
    PLACEMENT_HASH_ANNOTATION,
    QUEUE_LABEL,
    SERVING_HASH_ANNOTATION,
    TEMPLATE_HASH_ANNOTATION,
    TRAINING_HASH_ANNOTATION,
    WORKER_ANNOTATION,
    manifest_hash,
)
from ocelli_operator.memory import Memory

DEADLINE_EXCEEDED = "DeadlineExceeded"
EVICTED = "Evicted"
POD_PATIENCE_SECONDS = 5.0
"""A Job without a Pod for this long was refused one, or its controller is about to retry."""

_CHOSEN_ACCELERATORS = {str(item): item for item in (Accelerator.GPU, Accelerator.CPU)}
_REPELLING_EFFECTS = ("NoSchedule", "NoExecute")


class ChildKind(StrEnum):
    """Kinds of objects that the operator creates for a Classifier."""

    JOB = "Job"
    DEPLOYMENT = "Deployment"
    SERVICE = "Service"
    AUTOSCALER = "HorizontalPodAutoscaler"
    DISRUPTION_BUDGET = "PodDisruptionBudget"
    NETWORK_POLICY = "NetworkPolicy"


class TrainingLimit(StrEnum):
    """What a training waits for if it may not start."""

    STARTING = "Starting"
    INSTALLATION = "Installation"
    NAMESPACE = "Namespace"


class StartKind(StrEnum):
    """What has to wait for its turn when too much starts at the same time."""

    TRAINING = "Training"
    ROLLOUT = "Rollout"
    """Inference servers of a new revision, after a user's change, or as replacements where some are not ready."""
    UPGRADE = "Upgrade"
    """Ready inference servers are replaced because the installation changed: their image or its defaults."""


@dataclass(frozen=True, kw_only=True)
class ChildIdentity:
    """Which object it is, and who owns it."""

    namespace: str
    name: str
    uid: str
    owner_uid: str
    """UID of the controlling owner; otherwise empty."""
    classifier: str
    """Name of the Classifier by its label."""
    revision: str
    deleting: bool
    owner_kind: str = ""
    owner_name: str = ""
    """Kind and name of the controlling owner."""


@dataclass(frozen=True, kw_only=True)
class ObservedJob:
    """A training Job."""

    identity: ChildIdentity
    attempt: int
    training_hash: str
    finished: bool
    """It has completed or failed; none of its Pods runs."""
    succeeded: bool
    failure_reason: str
    """Reason of the Job's `Failed` condition, such as `DeadlineExceeded`; empty where it has not failed."""
    failure_message: str
    created_at: str = ""
    step: TrainingStep = TrainingStep.TRAIN
    workers: int = 1
    suspended: bool = False
    """Kueue, or somebody, has suspended it: Kubernetes creates no Pod for it, and ends those that it has."""
    queue: str = ""
    """The LocalQueue of Kueue that its label names; a webhook of Kueue may set it without `spec.training.queueName`."""

    def age_seconds(self, now: datetime) -> float:
        return (now - datetime.fromisoformat(self.created_at)).total_seconds() if self.created_at else 0.0


@dataclass(frozen=True, kw_only=True)
class ObservedPod:
    """A trainer or an inference server."""

    identity: ChildIdentity
    component: str
    attempt: int
    phase: str
    ready: bool
    created_at: str
    unschedulable: str
    """The scheduler's message if no node can take the Pod; otherwise empty."""
    waiting: str
    """Why its container waits, such as `CrashLoopBackOff: back-off 10s …`; empty where it doesn't."""
    exit_code: int | None
    """Of the container's last termination; None if it never terminated."""
    exit_reason: str
    """Of the container's last termination, such as `OOMKilled`."""
    termination_message: str
    memory_limit: str
    gpu: bool
    """It requests a GPU."""
    held_open: bool = False
    """The trainer has ended, but a sidecar keeps the Pod running: Kubernetes would wait forever."""
    end_reason: str = ""
    """Why Kubernetes ended the Pod as a whole, such as `DeadlineExceeded` or `Evicted`; otherwise empty."""
    end_message: str = ""
    step: TrainingStep = TrainingStep.TRAIN
    """Of a trainer."""
    worker: int = 0
    """Its number among the workers of a training, from 0."""

    @property
    def terminal(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @property
    def ended(self) -> bool:
        """Its program does not write any more."""
        return self.terminal or self.held_open

    @property
    def takes_requests(self) -> bool:
        """Whether it can still be sent a new request."""
        return self.ready and not self.identity.deleting and not self.terminal

    @property
    def outcome(self) -> Outcome | None:
        """The trainer's outcome, if it left one."""
        return parse_termination_message(self.termination_message) if self.termination_message else None


@dataclass(frozen=True, kw_only=True)
class ObservedChild:
    """An object that is applied: Service, autoscaler, disruption budget, NetworkPolicy, or the desired part of a Deployment."""

    identity: ChildIdentity
    manifest_hash: str
    content: bytes
    """JSON of labels and spec, kept packed because a parsed one takes six times the memory."""
    applied_as: str = ""
    """If a webhook rewrote what was applied: the `applied_hash` after that."""
    template_hash: str = ""
    """Of the Pod template that was applied; empty for kinds without one, and if an earlier release applied it."""

    def matches(self, desired: Manifest) -> bool:
        """Whether every desired label and field of the spec is as desired. Fields that others added do not count."""
        wanted = _desired_content(desired)
        return bool(_cut_to(json.loads(self.content), wanted) == wanted)

    def applied_hash(self, desired: Manifest, *, autoscaled: bool = False) -> str:
        """Hash of the current values of the desired labels and fields of the spec, without replicas that an autoscaler sets."""
        wanted = _desired_content(desired)
        if autoscaled:
            wanted["spec"] = {key: value for key, value in wanted["spec"].items() if key != "replicas"}
        return manifest_hash(_cut_to(json.loads(self.content), wanted))

    def has_template(self, desired: Manifest) -> bool:
        """Whether the Pod template is as desired, before any webhook: a change of it replaces every Pod."""
        template = desired["spec"]["template"]
        if self.template_hash:
            return self.template_hash == manifest_hash(template)
        return bool(_cut_to(json.loads(self.content)["spec"].get("template"), template) == template)


@dataclass(frozen=True, kw_only=True)
class ObservedDeployment:
    """The inference servers of one revision."""

    child: ObservedChild
    replicas_wanted: int
    up_to_date: bool
    """The Deployment controller has seen the latest spec."""
    complete: bool
    """Every replica has the latest template, and all of them have been available at the same time."""
    replicas_available: int
    """Of the latest template and of older ones."""
    replicas_outdated: int
    """Of older templates."""
    deadline_exceeded: bool
    """It made no progress for too long, although its Pods could be created."""
    accelerator: Accelerator | None
    """What was chosen for its Pods, if anything was."""
    placement_hash: str
    """Of what the spec asked for when the accelerator was chosen."""
    pod_refusal: str = ""
    """Kubernetes' message if it refuses to create Pods, because of a quota or admission."""
    serving_hash: str = ""
    """Of the `spec.serving` that it was built from; empty if an earlier release built it."""
    created_at: str = ""

    @property
    def identity(self) -> ChildIdentity:
        return self.child.identity

    @property
    def available(self) -> bool:
        """Every replica has the latest template and is available."""
        return self.up_to_date and self.complete and self.replicas_available >= self.replicas_wanted


@dataclass(frozen=True, kw_only=True)
class GpuNode:
    """A node that has GPUs."""

    labels: Mapping[str, str]
    taints: tuple[Mapping[str, str], ...]
    """Key, value and effect of those that keep Pods away; a node that is not ready has such taints as well."""


@dataclass(frozen=True, kw_only=True)
class SourcePoll:
    """What one poll of a Classifier's sources saw."""

    addresses: str
    """Identifies the addresses that were polled."""
    digest: str | None = None
    """Identifies their contents; None if not all of them answered."""
    fault: str | None = None
    """Why not everything was seen, with the remedy."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Everything known of one Classifier at one moment."""

    classifier: Classifier
    now: datetime
    jobs: tuple[ObservedJob, ...] = ()
    pods: tuple[ObservedPod, ...] = ()
    deployments: tuple[ObservedDeployment, ...] = ()
    services: tuple[ObservedChild, ...] = ()
    autoscalers: tuple[ObservedChild, ...] = ()
    disruption_budgets: tuple[ObservedChild, ...] = ()
    network_policies: tuple[ObservedChild, ...] = ()
    gpu_nodes: tuple[GpuNode, ...] = ()
    """Nodes that have GPUs, if nodes are watched."""
    artifact: HistoryEntry | None = None
    """The entry of the current revision, if the store holds its artifact; `trained_at` is empty if the time is unknown."""
    artifact_lost: bool = False
    """The artifact of the served revision is missing from the store."""
    store_fault: str = ""
    """Why stored artifact metadata, or a stored outcome, is unusable and counts as absent; otherwise empty."""
    store_error: str = ""
    """Why the store could not be read; empty if it could, or if it was not needed. After an error `artifact` comes from status,
    and `outcome` and `progress` are unknown."""
    outcome: Outcome | None = None
    """The stored outcome of the current attempt; None if the store holds none, or it was not needed."""
    progress: ProgressReport | None = None
    check: Outcome | None = None
    """The stored outcome of the check of the current attempt; None if the store holds none, or it was not needed."""
    fresh_classifier_id: str = ""
    """An id that is free in the namespace, for a Classifier without one."""
    id_taken: bool = False
    """An older Classifier of the namespace has the id that this one's label names."""
    allowed_starts: frozenset[StartKind] = frozenset(StartKind)
    """What it may start now; everything else waits for its turn."""
    source_poll: SourcePoll | None = None
    """The last poll of the sources; None if there was none."""
    training_limit: TrainingLimit = TrainingLimit.STARTING
    """The limit that a training waits for, if it may not start."""
    pod_refusal: str = ""
    """Kubernetes' message if it refuses to create a Pod for the current training Job."""
    admission: KueueAdmission | None = None
    """What Kueue says about the current training Job, if that is suspended."""
    memory: Memory = field(default_factory=Memory)
    """What earlier reconciles remember."""

    @property
    def trainers(self) -> tuple[ObservedPod, ...]:
        return tuple(pod for pod in self.pods if pod.component == Component.TRAINING)

    @property
    def inference_servers(self) -> tuple[ObservedPod, ...]:
        return tuple(pod for pod in self.pods if pod.component == Component.INFERENCE)


def project_job(manifest: Manifest) -> ObservedJob:
    """Type a Job."""
    metadata = manifest["metadata"]
    conditions = {
        item["type"]: item for item in (manifest.get("status") or {}).get("conditions") or () if item.get("status") == "True"
    }
    failed = conditions.get("Failed")
    return ObservedJob(
        identity=project_identity(manifest),
        attempt=_number((metadata.get("labels") or {}).get(ATTEMPT_LABEL)),
        training_hash=(metadata.get("annotations") or {}).get(TRAINING_HASH_ANNOTATION, ""),
        finished=failed is not None or "Complete" in conditions,
        succeeded="Complete" in conditions,
        failure_reason="" if failed is None else failed.get("reason", ""),
        failure_message="" if failed is None else failed.get("message", ""),
        created_at=metadata.get("creationTimestamp") or "",
        step=_find_step(metadata.get("labels") or {}),
        workers=(manifest.get("spec") or {}).get("completions") or 1,
        suspended=(manifest.get("spec") or {}).get("suspend") is True,
        queue=(metadata.get("labels") or {}).get(QUEUE_LABEL, ""),
    )


def _find_step(labels: Mapping[str, str]) -> TrainingStep:
    return TrainingStep.CHECK if labels.get(STEP_LABEL) == TrainingStep.CHECK else TrainingStep.TRAIN


def _is_held_open(status: Mapping[str, Any]) -> bool:
    # A kubelet reports the end of the last container some time before the end of the Pod: without another container, the Pod
    # ends by itself.
    others = [item for item in status.get("containerStatuses") or () if "terminated" not in (item.get("state") or {})]
    return status.get("phase") == "Running" and bool(others)


def project_pod(manifest: Manifest) -> ObservedPod:
    """Type a Pod. Only the container that runs our program counts."""
    status = manifest.get("status") or {}
    conditions = {item["type"]: item for item in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled") or {}
    labels = manifest["metadata"].get("labels") or {}
    program = TRAINER_CONTAINER if labels.get(COMPONENT_LABEL) == Component.TRAINING else INFERENCE_CONTAINER
    container = _find_named(status.get("containerStatuses"), program)
    state = container.get("state") or {}
    terminated = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    waiting = state.get("waiting") or {}
    unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
    limits = (_find_named(manifest["spec"]["containers"], program).get("resources") or {}).get("limits") or {}
    return ObservedPod(
        identity=project_identity(manifest),
        component=labels.get(COMPONENT_LABEL, ""),
        attempt=_number(labels.get(ATTEMPT_LABEL)),
        phase=status.get("phase", "Pending"),
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        created_at=manifest["metadata"].get("creationTimestamp") or "",
        unschedulable=scheduled.get("message", "") if unschedulable else "",
        waiting=_waiting_text(waiting),
        exit_code=terminated.get("exitCode"),
        exit_reason=terminated.get("reason", ""),
        termination_message=terminated.get("message", ""),
        memory_limit=str(limits.get("memory", "")),
        gpu=labels.get(ACCELERATOR_LABEL) == Accelerator.GPU,
        held_open="terminated" in state and program == TRAINER_CONTAINER and _is_held_open(status),
        end_reason=status.get("reason", ""),
        end_message=status.get("message", ""),
        step=_find_step(labels),
        worker=_number((manifest["metadata"].get("annotations") or {}).get(WORKER_ANNOTATION)),
    )


def project_child(manifest: Manifest) -> ObservedChild:
    """Type an object that is applied."""
    metadata = manifest["metadata"]
    content = {"labels": metadata.get("labels") or {}, "spec": manifest.get("spec") or {}}
    return ObservedChild(
        identity=project_identity(manifest),
        manifest_hash=(metadata.get("annotations") or {}).get(MANIFEST_HASH_ANNOTATION, ""),
        content=json.dumps(content, separators=(",", ":")).encode(),
        applied_as=(metadata.get("annotations") or {}).get(APPLIED_AS_ANNOTATION, ""),
        template_hash=(metadata.get("annotations") or {}).get(TEMPLATE_HASH_ANNOTATION, ""),
    )


def project_deployment(manifest: Manifest) -> ObservedDeployment:
    """Type a Deployment."""
    status = manifest.get("status") or {}
    wanted = manifest["spec"].get("replicas", 1)
    conditions: dict[str, Manifest] = {item["type"]: item for item in status.get("conditions") or ()}
    progressing, failing = conditions.get("Progressing", {}), conditions.get("ReplicaFailure", {})
    updated, replicas = status.get("updatedReplicas", 0), status.get("replicas", 0)
    pod_refusal = failing.get("message", "") if failing.get("status") == "True" else ""
    # Missing Pods were refused until a moment ago: the rollout starts once they exist.
    pods_made = not pod_refusal and updated > 0 and replicas >= wanted
    return ObservedDeployment(
        child=project_child(manifest),
        replicas_wanted=wanted,
        up_to_date=status.get("observedGeneration", 0) >= manifest["metadata"].get("generation", 0),
        complete=progressing.get("reason") == "NewReplicaSetAvailable" and updated == replicas == wanted,
        replicas_available=status.get("availableReplicas", 0),
        replicas_outdated=max(replicas - updated, 0),
        deadline_exceeded=pods_made and progressing.get("reason") == "ProgressDeadlineExceeded",
        accelerator=_CHOSEN_ACCELERATORS.get((manifest["metadata"].get("labels") or {}).get(ACCELERATOR_LABEL, "")),
        placement_hash=(manifest["metadata"].get("annotations") or {}).get(PLACEMENT_HASH_ANNOTATION, ""),
        pod_refusal=pod_refusal,
        serving_hash=(manifest["metadata"].get("annotations") or {}).get(SERVING_HASH_ANNOTATION, ""),
        created_at=manifest["metadata"].get("creationTimestamp") or "",
    )


def project_gpu_node(manifest: Manifest, resource: str) -> GpuNode | None:
    """Type a Node; None if it has none of the resource or takes no Pods, so that most nodes of a cluster take no memory."""
    allocatable = (manifest.get("status") or {}).get("allocatable") or {}
    spec = manifest.get("spec") or {}
    if spec.get("unschedulable") or str(allocatable.get(resource, "0")) == "0":
        return None
    taints = tuple(
        {key: taint.get(key, "") for key in ("key", "value", "effect")}
        for taint in spec.get("taints") or ()
        if taint.get("effect") in _REPELLING_EFFECTS
    )
    return GpuNode(labels=manifest["metadata"].get("labels") or {}, taints=taints)


def project_identity(manifest: Manifest) -> ChildIdentity:
    """Which object it is, and who owns it."""
    metadata = manifest["metadata"]
    labels = metadata.get("labels") or {}
    owner = find_controller(metadata)
    return ChildIdentity(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        owner_uid=owner.get("uid", ""),
        classifier=labels.get(CLASSIFIER_LABEL, ""),
        revision=labels.get(REVISION_LABEL, ""),
        deleting=bool(metadata.get("deletionTimestamp")),
        owner_kind=sys.intern(owner.get("kind", "")),
        owner_name=owner.get("name", ""),
    )


def _find_named(items: Iterable[Manifest] | None, name: str) -> Manifest:
    return next((item for item in items or () if item.get("name") == name), {})


def _desired_content(desired: Manifest) -> Manifest:
    return {"labels": desired["metadata"]["labels"], "spec": desired["spec"]}


def _cut_to(observed: Any, desired: Any) -> Any:
    """The observed values at the places of the desired ones, and a desired value where the observed one means the same."""
    if isinstance(desired, dict) and isinstance(observed, dict):
        return {key: _cut_to(observed[key], value) for key, value in desired.items() if key in observed}
    if isinstance(desired, list) and isinstance(observed, list) and len(observed) == len(desired):
        return [_cut_to(*pair) for pair in zip(observed, desired, strict=True)]
    return desired if observed == desired or _is_same_quantity(observed, desired) else observed


def _waiting_text(waiting: Mapping[str, Any]) -> str:
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    # Every container passes through these.
    if reason in ("", "ContainerCreating", "PodInitializing"):
        return ""
    return f"{reason}: {message}" if message else reason


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _is_same_quantity(observed: Any, desired: Any) -> bool:
    """The API server writes quantities in its own way: `1000m` comes back as `1`."""
    if not isinstance(observed, str) or not isinstance(desired, str | int):
        return False
    try:
        return parse_quantity(observed) == parse_quantity(str(desired))
    except ValueError:
        return False
