"""Cards: short descriptions of Classifiers, as the management API lists and streams it.

A card is computed once for each change of its object, because the revision of a large spec takes milliseconds, and is small
enough to keep one for each of many Classifiers. It must not know where objects come from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ocelli_api.classifier import CREATED_BY_GATEWAY, CREATED_BY_LABEL, Classifier
from ocelli_api.conditions import ConditionType, ReadyReason, TrainedReason
from ocelli_api.lifecycle import Lifecycle, find_awaited_approval, lifecycle
from ocelli_api.revision import current_revision
from ocelli_gateway.shown_status import explain, read_accuracy, read_progress
from ocelli_gateway.wire import TrainingProgress, wire_time

_EXPLAINED_REASONS = (
    ReadyReason.UNSCHEDULABLE,
    ReadyReason.GPU_NOT_OFFERED,
    ReadyReason.NO_SERVER_READY,
    ReadyReason.ARTIFACT_LOST,
)
"""Reasons of `Ready` that a user should read about although nothing has failed."""


class Manager(StrEnum):
    """What a Classifier is changed with."""

    REST = "REST"
    KUBECTL = "kubectl"
    HELM = "Helm"
    ARGO_CD = "Argo CD"
    FLUX = "Flux"


_MARKS: Mapping[str, Manager] = {
    "argocd.argoproj.io/tracking-id": Manager.ARGO_CD,
    "argocd.argoproj.io/instance": Manager.ARGO_CD,
    "kustomize.toolkit.fluxcd.io/name": Manager.FLUX,
    "helm.toolkit.fluxcd.io/name": Manager.FLUX,
    "meta.helm.sh/release-name": Manager.HELM,
}
"""Labels and annotations that these programs write. Flux installs charts with Helm, so its marks come before those of Helm."""
_FIELD_MANAGERS = (
    ("argocd", Manager.ARGO_CD),
    ("kustomize-controller", Manager.FLUX),
    ("helm-controller", Manager.FLUX),
    ("flux", Manager.FLUX),
    ("helm", Manager.HELM),
    ("kubectl", Manager.KUBECTL),
)
"""The beginnings of their names in `metadata.managedFields`, in the same order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownAccuracy:
    """An accuracy, its 95 % interval, and the number of images that it was measured on."""

    value: float
    lower: float
    upper: float
    images: int | None = None

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "value": round(self.value, 3),
            "lower": round(self.lower, 3),
            "upper": round(self.upper, 3),
        }
        return body if self.images is None else {**body, "images": self.images}


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """A Classifier in a list."""

    classifier_id: str
    name: str
    resource: str
    """Namespace and name of the object."""
    status: Lifecycle
    created: str
    updated: str
    """When anything was last seen to happen: a training ended, or a condition changed."""
    writable: bool
    current_revision: str
    reason: str | None = None
    explanation: str | None = None
    """Why it has failed, or what it waits for."""
    managed_by: Manager | None = None
    class_count: int | None = None
    suspended: bool = False
    accuracy: ShownAccuracy | None = None
    progress: TrainingProgress | None = None
    served_revision: str | None = None
    training_revision: str | None = None
    awaits_approval: str | None = None

    @classmethod
    def of(cls, classifier: Classifier) -> Card:
        """The card of a Classifier, which has an id."""
        status = classifier.status
        created = wire_time(classifier.created_at)
        moments = [status.trained_at, status.retrained_at, *(item.last_transition_time for item in status.conditions)]
        ready = status.condition(ConditionType.READY)
        current = current_revision(classifier)
        return cls(
            classifier_id=classifier.classifier_id or "",
            name=classifier.display_name,
            resource=f"{classifier.namespace}/{classifier.name}",
            status=lifecycle(classifier),
            created=created,
            updated=max([created, *(wire_time(moment) for moment in moments if moment)]),
            writable=classifier.rest_may_write,
            current_revision=current,
            reason=None if ready is None or not ready.reason else ready.reason,
            explanation=_explain(classifier),
            managed_by=find_manager(classifier),
            class_count=len(classifier.spec.classes) or None,
            suspended=classifier.spec.suspend,
            accuracy=_read_accuracy(classifier),
            progress=read_progress(status),
            served_revision=status.served_revision,
            training_revision=status.training_revision,
            awaits_approval=None if find_awaited_approval(classifier) is None else current,
        )

    def to_json(self) -> dict[str, Any]:
        """The item of the list, without what is not known."""
        body = {
            "classifier_id": self.classifier_id,
            "name": self.name,
            "resource": self.resource,
            "status": str(self.status),
            "reason": self.reason,
            "explanation": self.explanation,
            "created": self.created,
            "updated": self.updated,
            "managed_by": None if self.managed_by is None else str(self.managed_by),
            "writable": self.writable,
            "class_count": self.class_count,
            "suspended": True if self.suspended else None,
            "accuracy": None if self.accuracy is None else self.accuracy.to_json(),
            "progress": None if self.progress is None else self.progress.to_json(),
            "served_revision": self.served_revision,
            "current_revision": self.current_revision,
            "training_revision": self.training_revision,
            "awaits_approval": self.awaits_approval,
        }
        return {name: value for name, value in body.items() if value is not None}


def find_manager(classifier: Classifier) -> Manager | None:
    """What the Classifier is changed with, as far as its labels, annotations and field managers say."""
    labels, annotations = classifier.labels, classifier.annotations
    if labels.get(CREATED_BY_LABEL) == CREATED_BY_GATEWAY:
        return Manager.REST
    for mark, manager in _MARKS.items():
        if mark in annotations or mark in labels:
            return manager
    if labels.get("app.kubernetes.io/managed-by") == Manager.HELM:
        return Manager.HELM
    names = [name.lower() for name in classifier.field_managers]
    found = (manager for start, manager in _FIELD_MANAGERS if any(name.startswith(start) for name in names))
    return next(found, None)


def _explain(classifier: Classifier) -> str | None:
    return next((message for message in _find_explanations(classifier) if message), None)


def _find_explanations(classifier: Classifier) -> Iterator[str | None]:
    yield explain(classifier)
    status = classifier.status
    ready, trained = status.condition(ConditionType.READY), status.condition(ConditionType.TRAINED)
    if ready is not None and ready.reason in _EXPLAINED_REASONS:
        yield ready.message.removeprefix(f"{classifier}: ")
    if trained is not None and trained.reason == TrainedReason.QUEUED:
        yield trained.message.removeprefix(f"{classifier}: ")


def _read_accuracy(classifier: Classifier) -> ShownAccuracy | None:
    measured = read_accuracy(classifier.status)
    if measured is None:
        return None
    return ShownAccuracy(
        value=measured.accuracy, lower=measured.lower, upper=measured.upper, images=classifier.status.judged_images
    )
