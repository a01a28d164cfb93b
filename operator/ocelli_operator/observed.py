"""What the operator reads: Jobs, Deployments, Pods and other children projected to the fields that decisions rest on, and all
that is known of one Classifier at one moment. Pure: manifests in, frozen values out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from ocelli_api.classifier import Accelerator, AccuracyInterval, Classifier, Manifest
from ocelli_api.outcome import Outcome, ProgressReport, parse_termination_message
from ocelli_api.pods import (
    ACCELERATOR_LABEL,
    CLASSIFIER_LABEL,
    COMPONENT_LABEL,
    INFERENCE_CONTAINER,
    REVISION_LABEL,
    TRAINER_CONTAINER,
    Component,
    find_controller,
)
from ocelli_api.quantities import parse_quantity
from ocelli_operator.manifests.metadata import (
    APPLIED_AS_ANNOTATION,
    ATTEMPT_LABEL,
    MANIFEST_HASH_ANNOTATION,
    PLACEMENT_HASH_ANNOTATION,
    SERVING_HASH_ANNOTATION,
    TEMPLATE_HASH_ANNOTATION,
    TRAINING_HASH_ANNOTATION,
    manifest_hash,
)

DEADLINE_EXCEEDED = "DeadlineExceeded"
EVICTED = "Evicted"
POD_PATIENCE_SECONDS = 5.0
"""A Job that has no Pod for so long was refused one, or is about to try again."""

_CHOSEN_ACCELERATORS = {str(item): item for item in (Accelerator.GPU, Accelerator.CPU)}
_REPELLING_EFFECTS = ("NoSchedule", "NoExecute")


class ChildKind(StrEnum):
    """Kinds of objects that are made for a Classifier."""

    JOB = "Job"
    DEPLOYMENT = "Deployment"
    SERVICE = "Service"
    AUTOSCALER = "HorizontalPodAutoscaler"
    DISRUPTION_BUDGET = "PodDisruptionBudget"
    NETWORK_POLICY = "NetworkPolicy"


class StartKind(StrEnum):
    """What has to wait for its turn where too much begins at once."""

    TRAINING = "Training"
    ROLLOUT = "Rollout"
    """Servers of a new revision, or a change that a user made, or servers in place of some that are not all ready."""
    UPGRADE = "Upgrade"
    """Servers that answer are replaced because the installation changed: its image of inference servers, its defaults."""


@dataclass(frozen=True, kw_only=True)
class ChildIdentity:
    """Which object it is, and whose."""

    namespace: str
    name: str
    uid: str
    owner_uid: str
    """UID of the controlling owner; empty where there is none."""
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
    """It has completed or failed; no Pod of it runs."""
    succeeded: bool
    failure_reason: str
    """Reason of the Job's `Failed` condition, such as `DeadlineExceeded`; empty where it has not failed."""
    failure_message: str
    created_at: str = ""

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
    """The scheduler's own sentence, where no node can take the Pod; else empty."""
    waiting: str
    """Why its container waits, such as `CrashLoopBackOff: back-off 10s …`; empty where it doesn't."""
    exit_code: int | None
    """Of the container's last end; None where it never ended."""
    exit_reason: str
    """Of the container's last end, such as `OOMKilled`."""
    termination_message: str
    memory_limit: str
    gpu: bool
    """It asks for a GPU."""
    program_ended: bool = False
    """Its program has ended for good, whatever other containers do."""
    end_reason: str = ""
    """Why Kubernetes ended the Pod as a whole, such as `DeadlineExceeded` or `Evicted`; empty where it didn't."""
    end_message: str = ""

    @property
    def terminal(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @property
    def held_open(self) -> bool:
        """A trainer that has ended, in a Pod that a sidecar keeps running: Kubernetes would wait for ever."""
        return self.program_ended and self.phase == "Running" and self.component == Component.TRAINING

    @property
    def ended(self) -> bool:
        """Its program writes nothing any more."""
        return self.terminal or self.held_open

    @property
    def takes_requests(self) -> bool:
        """Whether somebody may still send it a new request."""
        return self.ready and not self.identity.deleting and not self.terminal

    @property
    def outcome(self) -> Outcome | None:
        """The trainer's outcome, where it left one."""
        return parse_termination_message(self.termination_message) if self.termination_message else None


@dataclass(frozen=True, kw_only=True)
class ObservedChild:
    """An object that is applied: Service, autoscaler, disruption budget, NetworkPolicy; the part of a Deployment that is
    desired."""

    identity: ChildIdentity
    generation: int
    """`metadata.generation`; 0 for kinds that have none."""
    manifest_hash: str
    content: bytes
    """JSON of labels and spec, kept packed because a parsed one takes six times the memory."""
    applied_as: str = ""
    """Where a webhook rewrote what was applied: what `came_to` was then."""
    template_hash: str = ""
    """Of the template of Pods that was applied; empty for kinds that have none, and where an earlier release applied it."""

    def matches(self, desired: Manifest) -> bool:
        """Whether every desired label and field of the spec is as desired; what others added does not count."""
        return _contains(json.loads(self.content), _wanted(desired))

    def came_to(self, desired: Manifest, *, autoscaled: bool = False) -> str:
        """Hash of what desired labels and fields of the spec are now; what others added elsewhere does not count, nor does what
        an autoscaler sets."""
        wanted = _wanted(desired)
        if autoscaled:
            wanted["spec"] = {key: value for key, value in wanted["spec"].items() if key != "replicas"}
        return manifest_hash(_cut_to(json.loads(self.content), wanted))

    def has_template(self, desired: Manifest) -> bool:
        """Whether the template of the Pods is as desired: a change of it replaces every Pod. What a webhook made of it does
        not count."""
        if self.template_hash:
            return self.template_hash == manifest_hash(desired["spec"]["template"])
        return _contains(json.loads(self.content)["spec"].get("template"), desired["spec"]["template"])


@dataclass(frozen=True, kw_only=True)
class ObservedDeployment:
    """The inference servers of one revision."""

    child: ObservedChild
    replicas_wanted: int
    up_to_date: bool
    """The Deployment controller has seen the latest spec."""
    complete: bool
    """Every replica is of the latest template, none of an older one runs, and once all of them were available."""
    replicas_available: int
    """Of the latest template and of older ones."""
    replicas_outdated: int
    """Of older templates."""
    deadline_exceeded: bool
    """It made no progress for too long, though its Pods could be made."""
    accelerator: Accelerator | None
    """What was chosen for its Pods; None where nothing was."""
    placement_hash: str
    """Of what was asked when that was chosen."""
    pod_refusal: str = ""
    """Kubernetes' sentence where it makes no Pod for it, because of a quota or of what else admission refuses."""
    serving_hash: str = ""
    """Of the `spec.serving` that it was made from; empty where an earlier release made it."""
    created_at: str = ""

    @property
    def identity(self) -> ChildIdentity:
        return self.child.identity

    @property
    def available(self) -> bool:
        """Every wanted replica is of the latest template and available."""
        return self.up_to_date and self.complete and self.replicas_available >= self.replicas_wanted


@dataclass(frozen=True, kw_only=True)
class GpuNode:
    """A node that has GPUs."""

    labels: Mapping[str, str]
    taints: tuple[Mapping[str, str], ...]
    """Key, value and effect of those that keep Pods away; a node that is not ready has such taints, too."""


@dataclass(frozen=True, kw_only=True)
class StoredArtifact:
    """What the store says of the artifact of a revision."""

    revision: str
    accuracy: str | None
    accuracy_interval: AccuracyInterval | None = None
    judged_images: int | None = None
    digest: str | None
    backbone: str | None
    finished_at: str | None


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
    """Nodes that have GPUs, as far as nodes are watched."""
    artifact: StoredArtifact | None = None
    """The artifact of the current revision; None where the store holds none."""
    artifact_lost: bool = False
    """The artifact of the served revision is not in the store any more."""
    store_fault: str = ""
    """Why what lies in the place of the artifact's metadata, or of the outcome, counts as absent; empty where nothing does."""
    store_trouble: str = ""
    """Why the store could not be asked; empty where it answered or was not needed. `artifact` is as status knows it then, and
    `outcome` and `progress` are unknown."""
    outcome: Outcome | None = None
    """The stored outcome of the attempt under way; None where the store holds none, or it was not needed."""
    progress: ProgressReport | None = None
    progress_written_at: datetime | None = None
    """When status last got a progress by this process; None before."""
    fresh_classifier_id: str = ""
    """An id that is free in the namespace, for a Classifier that has none."""
    id_taken: bool = False
    """Another, older Classifier of the namespace has the id that this one's label names."""
    allowed_starts: frozenset[StartKind] = frozenset(StartKind)
    """What it may start now; for the rest it has to wait until it is its turn."""
    applied: Mapping[str, str] = field(default_factory=dict)
    """For each child's UID: what this process's last apply came to, where a webhook rewrote what was applied. It would be
    applied for ever."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """For the hash of each manifest that the API server called invalid: its sentence. Sending it again is in vain."""
    dropped_revision: str | None = None
    """The revision whose examples this process has seen go, where they are not kept."""
    hindrances: Mapping[str, str] = field(default_factory=dict)
    """For the hash of each manifest that was refused when it was last sent, by a quota or by admission, or because another
    object has its name: what it waits for, with the remedy. It is sent again until it is taken."""
    in_the_way: Mapping[tuple[ChildKind, str], str] = field(default_factory=dict)
    """By kind and name: objects with the Classifier's label that are not its own, in a sentence with the remedy."""
    pod_refusal: str = ""
    """Kubernetes' sentence where it makes no Pod for the training Job under way."""

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
    )


def project_pod(manifest: Manifest) -> ObservedPod:
    """Type a Pod. Of its containers only the one that runs our program counts."""
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
        program_ended="terminated" in state,
        end_reason=status.get("reason", ""),
        end_message=status.get("message", ""),
    )


def project_child(manifest: Manifest) -> ObservedChild:
    """Type an object that is applied."""
    metadata = manifest["metadata"]
    content = {"labels": metadata.get("labels") or {}, "spec": manifest.get("spec") or {}}
    return ObservedChild(
        identity=project_identity(manifest),
        generation=metadata.get("generation", 0),
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
    # Where Pods are missing, they were refused until a moment ago: the rollout begins when they are there.
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
    """Type a Node; None where it has none of the resource or takes no Pods, so that most nodes of a cluster leave nothing."""
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
    """Which object it is, and whose."""
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


def _wanted(desired: Manifest) -> Manifest:
    return {"labels": desired["metadata"]["labels"], "spec": desired["spec"]}


def _cut_to(observed: Any, desired: Any) -> Any:
    """The part of what is observed that is at the places of what is desired."""
    if isinstance(desired, dict) and isinstance(observed, dict):
        return {key: _cut_to(observed[key], value) for key, value in desired.items() if key in observed}
    if isinstance(desired, list) and isinstance(observed, list) and len(observed) == len(desired):
        return [_cut_to(*pair) for pair in zip(observed, desired, strict=True)]
    return observed


def _waiting_text(waiting: Mapping[str, Any]) -> str:
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    # What every container passes through on its way is nothing to report.
    if reason in ("", "ContainerCreating", "PodInitializing"):
        return ""
    return f"{reason}: {message}" if message else reason


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _contains(observed: Any, desired: Any) -> bool:
    if isinstance(desired, dict):
        return isinstance(observed, dict) and all(
            key in observed and _contains(observed[key], value) for key, value in desired.items()
        )
    if isinstance(desired, list):
        return (
            isinstance(observed, list)
            and len(observed) == len(desired)
            and all(_contains(*pair) for pair in zip(observed, desired, strict=True))
        )
    return bool(observed == desired) or _is_same_quantity(observed, desired)


def _is_same_quantity(observed: Any, desired: Any) -> bool:
    """The API server writes quantities in its own way: `1000m` comes back as `1`."""
    if not isinstance(observed, str) or not isinstance(desired, str | int):
        return False
    try:
        return parse_quantity(observed) == parse_quantity(str(desired))
    except ValueError:
        return False
