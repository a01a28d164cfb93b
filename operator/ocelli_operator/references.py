"""What Classifiers refer to in the object store: artifacts of their revisions, documents of a training, and uploads."""

from __future__ import annotations

import logging
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, Classifier, Manifest, parse_classifier
from ocelli_api.revision import current_revision, definition, find_pinned_digests, find_upload_digests
from ocelli_cluster.resources import ObjectKey
from ocelli_storage.documents import parse_document, read_document
from ocelli_storage.layout import (
    ARTIFACT_METADATA,
    ARTIFACTS,
    CHECKPOINT,
    IMAGE_DATA,
    KINDS,
    TENANTS,
    THUMBNAILS,
    TRAININGS,
    ClassifierLocation,
)
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectStoreError, StoredObject

logger = logging.getLogger(__name__)

StoredClassifier = tuple[str, str]
"""Namespace and classifier id, as in the keys of stored objects."""


class StoredKey(NamedTuple):
    """The key of an object that is stored for a classifier."""

    namespace: str
    kind: str
    """`artifacts`, `trainings`, `sources` or `uploads`."""
    classifier_id: str
    path: tuple[str, ...]

    @property
    def classifier(self) -> StoredClassifier:
        return (self.namespace, self.classifier_id)

    def __str__(self) -> str:
        return "/".join((TENANTS, self.namespace, self.kind, self.classifier_id, *self.path))


def parse_key(key: str) -> StoredKey | None:
    """None if the object is not stored for a classifier."""
    parts = key.split("/")
    if len(parts) < 5 or parts[0] != TENANTS or parts[2] not in KINDS:
        return None
    return StoredKey(parts[1], parts[2], parts[3], tuple(parts[4:]))


@dataclass(frozen=True, kw_only=True)
class References:
    """What the existing Classifiers with one id refer to."""

    revisions: frozenset[str]
    """Revisions whose artifacts are kept."""
    trainings: frozenset[tuple[str, int]]
    """Revisions and attempts whose training documents are kept."""
    uploads: frozenset[str] | None
    """Digests of the uploads and copies of pinned sources that are kept; None if they are unknown, so that all are kept."""
    failed: frozenset[tuple[str, int]] = frozenset()
    """Revisions and attempts that failed: their documents are kept for people, but not what only a training
    needs: what a check read, and checkpoints."""
    everything: bool = False
    """Everything is kept, because an object cannot be parsed."""

    def __or__(self, other: References) -> References:
        uploads = None if self.uploads is None or other.uploads is None else self.uploads | other.uploads
        return References(
            revisions=self.revisions | other.revisions,
            trainings=self.trainings | other.trainings,
            failed=self.failed | other.failed,
            uploads=uploads,
            everything=self.everything or other.everything,
        )

    def keeps(self, key: StoredKey) -> bool:
        """Whether an object of these Classifiers is referred to."""
        if self.everything:
            return True
        if key.kind == ARTIFACTS:
            return key.path[0] in self.revisions
        if key.kind == TRAININGS:
            is_for_people = key.path[-1] == THUMBNAILS
            for_training = (IMAGE_DATA in key.path and not is_for_people) or key.path[-1].startswith(CHECKPOINT)
            kept = self.trainings if for_training else self.trainings | self.failed
            return any(key.path[:2] == (revision, str(attempt)) for revision, attempt in kept)
        # A zip that was uploaded may also be pinned at an address: its digest is one for both.
        return self.uploads is None or key.path[0].removesuffix(".zip") in self.uploads


KEEPS_EVERYTHING = References(revisions=frozenset(), trainings=frozenset(), uploads=None, everything=True)


@dataclass(kw_only=True)
class LiveClassifiers:
    """The Classifiers that exist."""

    definitions: Mapping[str, StoredObject]
    """By key, the stored definitions of the last listing of the store."""
    references: dict[StoredClassifier, References] = field(default_factory=dict)
    versions: dict[StoredClassifier, set[str]] = field(default_factory=lambda: defaultdict(set))
    """resourceVersions of the objects that these references come from."""
    served: dict[ObjectKey, tuple[str, str]] = field(default_factory=dict)
    """By Classifier: the served revision and the key of its artifact."""
    forbidden: list[str] = field(default_factory=list)
    """Namespaces that the operator has no right to read."""


class ReferenceReader:
    """Finds the references of Classifiers, for which it reads their stored definitions."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._known: dict[str, tuple[StoredObject, frozenset[str]]] = {}
        """By key: the definitions that were read before, and their uploads. Few change, and to read one is a request."""

    def start(self, definitions: Mapping[str, StoredObject]) -> LiveClassifiers:
        """No Classifiers yet. Definitions that have changed since they were read will be read again."""
        self._known = {key: known for key, known in self._known.items() if definitions.get(key) == known[0]}
        return LiveClassifiers(definitions=definitions)

    async def add(self, live: LiveClassifiers, manifest: Manifest) -> None:
        """Add a Classifier, as the API server has it."""
        metadata = manifest["metadata"]
        found: dict[str, References] = {}
        try:
            classifier = parse_classifier(manifest)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # Its references are unknown, so everything that is stored for it is kept.
            name = f"{metadata['namespace']}/{metadata['name']}"
            logger.warning(
                "Classifier cannot be parsed; its stored data is kept", extra={"classifier": name, "error": str(error)}
            )
            found = dict.fromkeys(find_ids(manifest), KEEPS_EVERYTHING)
        else:
            if classifier.classifier_id is not None:
                location = ClassifierLocation(namespace=classifier.namespace, classifier_id=classifier.classifier_id)
                found = {classifier.classifier_id: await self._find_references(live, classifier, location)}
                served = classifier.status.served_revision
                if served is not None and not classifier.deleted:
                    key = ObjectKey(classifier.namespace, classifier.name)
                    live.served[key] = (served, location.artifact_key(served, ARTIFACT_METADATA))
        for classifier_id, references in found.items():
            stored = (metadata["namespace"], classifier_id)
            known = live.references.get(stored)
            # Two objects may have the same id for a moment, until the newer one gets another.
            live.references[stored] = references if known is None else known | references
            live.versions[stored].add(metadata["resourceVersion"])

    async def _find_references(self, live: LiveClassifiers, classifier: Classifier, location: ClassifierLocation) -> References:
        status, revisions = classifier.status, find_revisions(classifier)
        return References(
            revisions=revisions,
            trainings=frozenset([(status.training_revision, status.attempt)] if status.training_revision else []),
            failed=frozenset([(status.failed_revision, status.attempt)] if status.failed_revision else []),
            uploads=await self._find_uploads(live, classifier, location, revisions),
        )

    async def _find_uploads(
        self, live: LiveClassifiers, classifier: Classifier, location: ClassifierLocation, revisions: frozenset[str]
    ) -> frozenset[str] | None:
        digests = set(_find_digests(definition(classifier.spec)))
        learned = {entry.revision for entry in classifier.status.history}
        for revision in revisions:
            key = location.definition_key(revision)
            if key not in live.definitions and revision not in learned:
                # It has no artifact, or one so new that its definition is that of the spec.
                continue
            try:
                digests |= await self._read_uploads(key, live.definitions.get(key))
            except ObjectNotFoundError:
                continue
            except (ObjectStoreError, ValueError, KeyError, TypeError, AttributeError) as error:
                logger.warning(
                    "stored definition cannot be read; all uploads of the Classifier are kept",
                    extra={"classifier": str(classifier), "revision": revision, "error": str(error)},
                )
                return None
        return frozenset(digests)

    async def _read_uploads(self, key: str, listed: StoredObject | None) -> frozenset[str]:
        """The uploads that a stored definition names."""
        if key in self._known:
            return self._known[key][1]
        digests = _find_digests(parse_document(await read_document(self._store, key)))
        # Revisions of one Classifier mostly name the same uploads.
        uploads = frozenset(sys.intern(digest) for digest in digests)
        if listed is not None:
            self._known[key] = (listed, uploads)
        return uploads


def _find_digests(document: Mapping[str, Any]) -> frozenset[str]:
    return find_upload_digests(document) | find_pinned_digests(document)


def find_revisions(classifier: Classifier) -> frozenset[str]:
    """The revisions of a Classifier that are never pruned: those of its history and those in use."""
    status = classifier.status
    named = (current_revision(classifier), status.served_revision, status.settled_revision, status.training_revision)
    return frozenset(revision for revision in named if revision) | {entry.revision for entry in status.history}


def find_ids(manifest: Manifest) -> set[str]:
    """The classifier ids, in status and label, under which data of an object may be stored. Its other content may be
    anything."""
    status, labels = manifest.get("status"), manifest["metadata"].get("labels")
    named = (
        status.get("classifierID") if isinstance(status, Mapping) else None,
        labels.get(CLASSIFIER_ID_LABEL) if isinstance(labels, Mapping) else None,
    )
    return {name for name in named if isinstance(name, str) and name}
