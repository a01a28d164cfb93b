"""The parts of Classifiers and inference servers that requests need, taken from their objects: small enough for memory.

It must not know where the objects come from.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, CREATED_AT_ANNOTATION, Classifier, Manifest, parse_classifier
from ocelli_api.lifecycle import Lifecycle, lifecycle
from ocelli_api.names import STEM_LIMIT, is_classifier_id
from ocelli_api.pods import REVISION_LABEL, is_inference_server
from ocelli_gateway.cards import Card
from ocelli_gateway.classifier_errors import UnreadableClassifierError

logger = logging.getLogger(__name__)

_NUMBER_DIGITS = 10


@dataclass(frozen=True, kw_only=True)
class KnownClassifier:
    """The parts of a Classifier that classify needs."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    classifier_id: str
    display_name: str
    age_order: str
    """Older classifiers have smaller values."""
    served_revision: str | None
    ready_reason: str
    """The reason of its condition `Ready`; empty before the first reconcile."""
    deleted: bool
    stalled: bool = False
    """It stays unready until a user changes something."""
    card: Card | None = None
    """None where only the rest was read, or a later release wrote the object."""


@dataclass(frozen=True, kw_only=True)
class BriefClassifier:
    """The parts of a Classifier that the brief list needs. Computing them is slow: it needs the revision of the whole spec."""

    uid: str
    resource_version: str
    name: str
    classifier_id: str
    display_name: str
    age_order: str
    lifecycle: Lifecycle
    settled_revision: str
    retrain_nonce: int
    deleted: bool

    @classmethod
    def of(cls, classifier: Classifier) -> BriefClassifier:
        return cls(
            uid=classifier.uid,
            resource_version=classifier.resource_version,
            name=classifier.name,
            classifier_id=classifier.classifier_id or "",
            display_name=classifier.display_name,
            age_order=classifier.age_order,
            lifecycle=lifecycle(classifier),
            settled_revision=classifier.status.settled_revision or "",
            retrain_nonce=classifier.spec.retrain_nonce,
            deleted=classifier.deleted,
        )


@dataclass(frozen=True, kw_only=True)
class InferenceServer:
    """One Pod that answers predictions."""

    uid: str
    address: str
    """The IP of the Pod."""
    classifier_id: str
    revision: str
    takes_requests: bool
    """It is Ready and not terminating."""


def is_alive(manifest: Manifest, classifier_id: str) -> bool:
    known = project_classifier(manifest)
    return known is not None and known.classifier_id == classifier_id and not known.deleted


def project_classifier(manifest: Manifest) -> KnownClassifier | None:
    """None for a classifier without an id: no request can name it."""
    metadata: Mapping[str, object] = manifest["metadata"]
    status = manifest.get("status") or {}
    labels = metadata.get("labels")
    classifier_id = status.get("classifierID") or (labels.get(CLASSIFIER_ID_LABEL) if isinstance(labels, Mapping) else None)
    if not classifier_id:
        return None
    annotations = metadata.get("annotations")
    created_at = annotations.get(CREATED_AT_ANNOTATION) if isinstance(annotations, Mapping) else None
    return KnownClassifier(
        namespace=manifest["metadata"]["namespace"],
        name=manifest["metadata"]["name"],
        uid=manifest["metadata"]["uid"],
        resource_version=manifest["metadata"]["resourceVersion"],
        classifier_id=classifier_id,
        display_name=manifest["spec"].get("displayName") or manifest["metadata"]["name"],
        age_order=manifest["metadata"]["creationTimestamp"] + (created_at if isinstance(created_at, str) else ""),
        served_revision=status.get("servedRevision"),
        ready_reason=next((item["reason"] for item in status.get("conditions") or () if item["type"] == "Ready"), ""),
        deleted=bool(metadata.get("deletionTimestamp")),
        stalled=any(item["type"] == "Stalled" and item["status"] == "True" for item in status.get("conditions") or ()),
    )


def project_with_card(manifest: Manifest) -> KnownClassifier | None:
    """The same with the card, for which the whole object is parsed."""
    known = project_classifier(manifest)
    if known is None or known.deleted:
        return known
    try:
        return replace(known, card=Card.of(parse_manifest(manifest)))
    except (UnreadableClassifierError, ValueError) as error:
        # Classify still works with it.
        logger.warning("a Classifier has no card: %s", error, extra={"classifier": f"{known.namespace}/{known.name}"})
        return known


def parse_manifest(manifest: Manifest) -> Classifier:
    """Raises UnreadableClassifierError."""
    try:
        return parse_classifier(manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        metadata = manifest["metadata"]
        raise UnreadableClassifierError(f"Classifier {metadata['namespace']}/{metadata['name']}") from error


def log_unreadable(error: UnreadableClassifierError) -> None:
    logger.warning("a Classifier is left out: %s", error, extra={"problem": str(error.__cause__)})


def project_server(manifest: Manifest) -> InferenceServer | None:
    """None for a Pod without an address, or one that the operator did not create: it must not get users' images."""
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    labels = metadata.get("labels") or {}
    address, classifier_id, revision = status.get("podIP"), labels.get(CLASSIFIER_ID_LABEL), labels.get(REVISION_LABEL)
    if not (address and classifier_id and revision and is_inference_server(metadata)):
        return None
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions") or ())
    return InferenceServer(
        uid=metadata["uid"],
        address=address,
        classifier_id=classifier_id,
        revision=revision,
        takes_requests=ready and not metadata.get("deletionTimestamp"),
    )


def may_exist(classifier_id: str) -> bool:
    """Whether a classifier can have this id: only such ids are looked up."""
    return is_classifier_id(classifier_id) and len(classifier_id) <= STEM_LIMIT + 1 + _NUMBER_DIGITS
