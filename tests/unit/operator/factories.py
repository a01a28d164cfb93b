"""What the operator can observe: a test sets the relevant values, the rest is as for a healthy Classifier."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, Accelerator, Classifier, Manifest, parse_spec
from ocelli_api.classifier_status import AccuracyInterval, ClassifierStatus, HistoryEntry
from ocelli_api.conditions import ConditionType
from ocelli_api.outcome import Outcome, OutcomeReason
from ocelli_api.pods import ACCELERATOR_LABEL, Component
from ocelli_api.revision import current_revision, training_hash
from ocelli_api.settings import load_settings
from ocelli_operator.actions import ApplyChild, DeleteChild
from ocelli_operator.manifests.metadata import (
    MANIFEST_HASH_ANNOTATION,
    PLACEMENT_HASH_ANNOTATION,
    SERVING_HASH_ANNOTATION,
    TEMPLATE_HASH_ANNOTATION,
    job_name,
)
from ocelli_operator.memory import Refusal
from ocelli_operator.observed import (
    ChildIdentity,
    ChildKind,
    Observed,
    ObservedChild,
    ObservedDeployment,
    ObservedJob,
    ObservedPod,
)
from ocelli_operator.plan import Plan, plan_classifier
from ocelli_operator.settings import ChildSettings
from ocelli_operator.source_polls import PollError, SourcePolls
from ocelli_operator.starts import StartLimits, Starts, Workloads

NOW = datetime(2026, 5, 4, 12, 0, 0, tzinfo=UTC)
NO_WORKLOADS = Workloads(served_revision=None, jobs=(), pods=(), deployments=())
LATER = datetime(2026, 5, 4, 13, 0, 0, tzinfo=UTC)
UID = "uid-dogs"
CLASSIFIER_ID = "dogs_19"
PINNED = "a" * 64


def make_settings(**environment: str) -> ChildSettings:
    return load_settings(ChildSettings, {"OCELLI_STORE_URL": "file:///store", **environment})


def make_spec(**fields: Any) -> Manifest:
    """Two classes, unless fields say otherwise; None leaves a field out."""
    classes = [
        {"name": name, "examples": [{"url": f"https://data.test/{name}.zip", "sha256": PINNED}]} for name in ("cat", "dog")
    ]
    return {name: value for name, value in {"classes": classes, **fields}.items() if value is not None}


def make_classifier(status: ClassifierStatus | None = None, *, labels: dict[str, str] | None = None, **spec: Any) -> Classifier:
    """One that the operator has already adopted, unless a status is given."""
    return Classifier(
        namespace="team-a",
        name="dogs",
        uid=UID,
        generation=1,
        resource_version="7",
        created_at="2026-05-04T11:00:00Z",
        deleted=False,
        labels={CLASSIFIER_ID_LABEL: CLASSIFIER_ID} if labels is None else labels,
        annotations={},
        spec=parse_spec(make_spec(**spec)),
        status=ClassifierStatus(classifier_id=CLASSIFIER_ID, observed_generation=1) if status is None else status,
    )


def make_identity(
    name: str, revision: str, *, owner_uid: str = UID, deleting: bool = False, owner: tuple[str, str] = ("Classifier", "dogs")
) -> ChildIdentity:
    """`owner` has kind and name of the controller."""
    return ChildIdentity(
        namespace="team-a",
        name=name,
        uid=f"uid-{name}",
        owner_uid=owner_uid,
        classifier="dogs",
        revision=revision,
        deleting=deleting,
        owner_kind=owner[0],
        owner_name=owner[1],
    )


def make_job(classifier: Classifier, attempt: int = 1, *, revision: str | None = None, **fields: Any) -> ObservedJob:
    revision = revision or current_revision(classifier)
    values: dict[str, Any] = {
        "identity": make_identity(job_name("dogs", revision, attempt), revision),
        "attempt": attempt,
        "training_hash": training_hash(classifier.spec.training),
        "finished": False,
        "succeeded": False,
        "failure_reason": "",
        "failure_message": "",
    }
    return ObservedJob(**{**values, **fields})


def make_pod(component: Component, revision: str, **fields: Any) -> ObservedPod:
    name = fields.pop("name", f"dogs-{revision}-pod")
    if component is Component.TRAINING:
        owner = ("Job", job_name("dogs", revision, fields.get("attempt", 1)))
    else:
        owner = ("ReplicaSet", f"dogs-{revision}-5d4f8c")
    identity = make_identity(name, revision, owner_uid=f"uid-{owner[1]}", owner=owner, deleting=fields.pop("deleting", False))
    values: dict[str, Any] = {
        "identity": identity,
        "component": str(component),
        "attempt": 1,
        "phase": "Running",
        "ready": component is Component.INFERENCE,
        "created_at": "2026-05-04T11:30:00Z",
        "unschedulable": "",
        "waiting": "",
        "exit_code": None,
        "exit_reason": "",
        "termination_message": "",
        "memory_limit": "",
        "gpu": False,
    }
    return ObservedPod(**{**values, **fields})


def make_outcome(classifier: Classifier, reason: OutcomeReason, message: str, attempt: int = 1) -> Outcome:
    return Outcome(reason=reason, message=message, revision=current_revision(classifier), attempt=attempt)


def make_artifact(classifier: Classifier) -> HistoryEntry:
    return HistoryEntry(
        revision=current_revision(classifier),
        accuracy="0.934",
        accuracy_interval=AccuracyInterval(lower="0.871", upper="0.967"),
        judged_images=100,
        artifact_digest="d" * 64,
        backbone="EfficientNetLite0",
        trained_at="2026-05-04T11:50:00.000Z",
    )


class StandInReader:
    """Servers of sources: the validator of each address, or the error."""

    def __init__(self, **validators: str | PollError) -> None:
        self.validators: dict[str, str | PollError] = dict(validators)
        self.asked: list[str] = []

    async def find_validator(self, url: str) -> str:
        self.asked.append(url)
        validator = self.validators.get(url, "unchanged")
        if isinstance(validator, PollError):
            raise validator
        return validator

    async def close(self) -> None:
        return None


def make_polls() -> SourcePolls:
    """Polls that are never carried out."""
    return SourcePolls(reader=StandInReader(), wake=lambda _: None)


def message_of(plan: Plan, condition_type: ConditionType) -> str:
    condition = plan.status.condition(condition_type)
    assert condition is not None
    return condition.message


def find_applied(plan: Plan, kind: ChildKind) -> list[Manifest]:
    return [action.manifest for action in plan.actions if isinstance(action, ApplyChild) and action.kind is kind]


def as_child(manifest: Manifest) -> ObservedChild:
    """The manifest as the API server would hold it."""
    return ObservedChild(
        identity=make_identity(manifest["metadata"]["name"], manifest["metadata"]["labels"].get("ocelli.dev/revision", "")),
        manifest_hash=manifest["metadata"]["annotations"][MANIFEST_HASH_ANNOTATION],
        content=json.dumps({"labels": manifest["metadata"]["labels"], "spec": manifest["spec"]}).encode(),
        template_hash=manifest["metadata"]["annotations"].get(TEMPLATE_HASH_ANNOTATION, ""),
    )


def as_deployment(manifest: Manifest, **fields: Any) -> ObservedDeployment:
    """The same as a Deployment that is fully available."""
    replicas = manifest["spec"]["replicas"]
    values: dict[str, Any] = {
        "child": as_child(manifest),
        "replicas_wanted": replicas,
        "up_to_date": True,
        "complete": True,
        "replicas_available": replicas,
        "replicas_outdated": 0,
        "deadline_exceeded": False,
        "accelerator": Accelerator(manifest["metadata"]["labels"][ACCELERATOR_LABEL]),
        "placement_hash": manifest["metadata"]["annotations"][PLACEMENT_HASH_ANNOTATION],
        "serving_hash": manifest["metadata"]["annotations"][SERVING_HASH_ANNOTATION],
    }
    return ObservedDeployment(**{**values, **fields})


class World:
    """A Classifier and everything around it; `step` plans, and carries out the plan as the API server would."""

    def __init__(self, **spec: Any) -> None:
        self.settings = make_settings()
        self.observed = Observed(classifier=make_classifier(**spec), now=NOW)

    @property
    def status(self) -> ClassifierStatus:
        return self.observed.classifier.status

    @property
    def revision(self) -> str:
        return current_revision(self.observed.classifier)

    def see(self, **fields: Any) -> None:
        """From now on these values are observed."""
        self.observed = replace(self.observed, **fields)

    def refuse(self, manifest_hash: str, message: str, *, invalid: bool = False) -> None:
        """The manifest was refused when it was last sent."""
        memory = self.observed.memory.with_refusal(manifest_hash, Refusal(message=message, invalid=invalid))
        self.see(memory=memory)

    def edit(self, **spec: Any) -> None:
        """A user changes the spec."""
        classifier = self.observed.classifier
        changed = replace(classifier, spec=parse_spec(make_spec(**spec)), generation=classifier.generation + 1)
        self.see(classifier=changed, artifact=None, progress=None, outcome=None, check=None)

    def plan(self) -> Plan:
        return plan_classifier(self.observed, self.settings)

    def step(self, *, available: bool = True) -> Plan:
        """One reconcile. New Deployments have their Pods, and are available at once by default."""
        plan = self.plan()
        deployments = {item.identity.name: item for item in self.observed.deployments}
        children = {
            ChildKind.SERVICE: list(self.observed.services),
            ChildKind.AUTOSCALER: list(self.observed.autoscalers),
            ChildKind.DISRUPTION_BUDGET: list(self.observed.disruption_budgets),
            ChildKind.NETWORK_POLICY: list(self.observed.network_policies),
        }
        pods = list(self.observed.pods)
        for action in plan.actions:
            if isinstance(action, ApplyChild) and action.kind is ChildKind.DEPLOYMENT:
                made = as_deployment(action.manifest)
                if not available:
                    made = replace(made, complete=False, replicas_available=0)
                deployments[made.identity.name] = made
                revision = made.identity.revision
                pods = [pod for pod in pods if pod.identity.revision != revision or pod.component == Component.TRAINING]
                pods.append(make_pod(Component.INFERENCE, revision, ready=available))
            elif isinstance(action, ApplyChild):
                children[action.kind] = [as_child(action.manifest)]
            elif isinstance(action, DeleteChild):
                gone = action.identity
                deployments.pop(gone.name, None)
                if action.kind is ChildKind.DEPLOYMENT:
                    pods = [pod for pod in pods if pod.identity.revision != gone.revision]
                self.see(jobs=tuple(job for job in self.observed.jobs if job.identity != gone))
        self.see(
            deployments=tuple(deployments.values()),
            services=tuple(children[ChildKind.SERVICE]),
            autoscalers=tuple(children[ChildKind.AUTOSCALER]),
            disruption_budgets=tuple(children[ChildKind.DISRUPTION_BUDGET]),
            network_policies=tuple(children[ChildKind.NETWORK_POLICY]),
            pods=tuple(pods),
            classifier=replace(self.observed.classifier, status=plan.status),
        )
        return plan

    def learn(self) -> None:
        """The training of the current revision succeeds."""
        self.see(artifact=make_artifact(self.observed.classifier))

    def settle(self, reconciles: int = 8) -> None:
        """Reconcile until nothing is left to do."""
        for _ in range(reconciles):
            before = self.status
            plan = self.step()
            if not plan.actions and plan.status == before:
                return
        raise AssertionError(f"not settled after {reconciles} reconciles: {plan}")


def settled_world(**spec: Any) -> World:
    """A Classifier whose first revision is served."""
    world = World(**spec)
    world.step()
    world.learn()
    world.settle()
    return world


def make_history(count: int) -> tuple[HistoryEntry, ...]:
    return tuple(HistoryEntry(revision=f"{number:010d}", trained_at="2026-01-01T00:00:00.000Z") for number in range(count))


def make_starts() -> Starts:
    """With limits that no test reaches."""
    return Starts(StartLimits(trainings=100, rollouts=20, upgrade_counted_for=timedelta(minutes=11)), lambda: NOW)
