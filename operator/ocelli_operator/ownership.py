"""Ownership: which objects with a Classifier's labels are its own, and which others have a name that it needs. Pure.

Labels are easily copied, for example by `kubectl expose`. A child is the Classifier's own if its controller has the UID of the
Classifier; a Pod, if its controller is a child's Job or ReplicaSet. No other object is changed or deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol, TypeVar

from ocelli_api.classifier import KIND
from ocelli_api.pods import Component, deployment_name
from ocelli_operator.manifests.metadata import job_names
from ocelli_operator.observed import ChildIdentity, ChildKind, Observed, ObservedPod


class _Child(Protocol):
    @property
    def identity(self) -> ChildIdentity: ...


C = TypeVar("C", bound=_Child)


def keep_own(observed: Observed) -> tuple[Observed, dict[tuple[ChildKind, str], str]]:
    """What was observed, without objects that are not the Classifier's own; and by kind and name of those, why a child cannot
    have the name."""
    uid = observed.classifier.uid
    foreign: dict[tuple[ChildKind, str], ChildIdentity] = {}

    def own(kind: ChildKind, children: Iterable[C]) -> tuple[C, ...]:
        kept: list[C] = []
        for child in children:
            if child.identity.owner_uid == uid:
                kept.append(child)
            else:
                foreign[kind, child.identity.name] = child.identity
        return tuple(kept)

    observed = replace(
        observed,
        jobs=own(ChildKind.JOB, observed.jobs),
        deployments=own(ChildKind.DEPLOYMENT, observed.deployments),
        services=own(ChildKind.SERVICE, observed.services),
        autoscalers=own(ChildKind.AUTOSCALER, observed.autoscalers),
        disruption_budgets=own(ChildKind.DISRUPTION_BUDGET, observed.disruption_budgets),
        network_policies=own(ChildKind.NETWORK_POLICY, observed.network_policies),
    )
    pods = tuple(pod for pod in observed.pods if _is_own_pod(pod, observed.classifier.name, foreign))
    conflicts = {(kind, name): f"{kind} {name} {describe_conflict(identity)}" for (kind, name), identity in foreign.items()}
    return replace(observed, pods=pods), conflicts


def describe_conflict(identity: ChildIdentity) -> str:
    """Why a child cannot have this object's name, with the remedy; completes a sentence that begins with the child."""
    if identity.owner_kind == KIND:
        return "belongs to an earlier Classifier of this name; it is recreated after Kubernetes has deleted that one"
    if identity.deleting:
        return "is being deleted; it is recreated after that"
    return "already exists and does not belong to this Classifier; delete it, or give the Classifier another name"


def _is_own_pod(pod: ObservedPod, classifier_name: str, foreign: dict[tuple[ChildKind, str], ChildIdentity]) -> bool:
    identity = pod.identity
    if pod.component == Component.TRAINING:
        # After its Job is gone only the name is left to go by: such a Pod may still write to the store.
        names = job_names(classifier_name, identity.revision, pod.attempt, pod.step)
        is_job = identity.owner_kind == str(ChildKind.JOB) and identity.owner_name in names
        return is_job and all(item.uid != identity.owner_uid for item in foreign.values())
    # ReplicaSets are not watched: they are named after their Deployment.
    name = deployment_name(classifier_name, identity.revision)
    is_replica = identity.owner_kind == "ReplicaSet" and identity.owner_name.rpartition("-")[0] == name
    return is_replica and (ChildKind.DEPLOYMENT, name) not in foreign
