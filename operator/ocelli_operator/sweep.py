"""The sweep of the object store: bytes that no living Classifier refers to go.

It takes the place of a finalizer, which would block deletions while the operator is down. What is judged is listed first, the
Classifiers after it, live and complete, so that whatever a living Classifier refers to is seen to be referred to; and bytes
younger than an hour are spared, because an upload comes before its Classifier. Where a Classifier was seen to be deleted its
bytes go at once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ocelli_api.classifier import Classifier, parse_classifier
from ocelli_api.revision import current_revision, definition, find_upload_digests
from ocelli_cluster.client import ClusterClient
from ocelli_cluster.resources import CLASSIFIERS
from ocelli_storage.documents import parse_document, read_document
from ocelli_storage.layout import ARTIFACTS, DEFINITION, KINDS, TENANTS, TRAININGS, ClassifierLocation
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectStoreError, StoredObject

logger = logging.getLogger(__name__)

FAILED_DELETES_LIMIT = 20
"""So many failed deletes end a sweep: each may take half a minute, and what was listed before may be wanted by then."""


@dataclass(frozen=True, kw_only=True)
class References:
    """What one living Classifier refers to."""

    revisions: frozenset[str]
    """Revisions whose artifacts are kept."""
    training: tuple[str, int] | None
    """Revision and attempt whose training documents are kept."""
    uploads: frozenset[str] | None
    """Digests of the uploads that are kept; None where nobody can tell: all of them."""

    def keeps(self, kind: str, parts: Sequence[str]) -> bool:
        """Whether something is referred to: `parts` is what follows the classifier id in its key."""
        if kind == ARTIFACTS:
            return parts[0] in self.revisions
        if kind == TRAININGS:
            return len(parts) > 1 and (parts[0], parts[1]) == (self.training and (self.training[0], str(self.training[1])))
        return self.uploads is None or parts[0].removesuffix(".zip") in self.uploads


def find_revisions(classifier: Classifier) -> frozenset[str]:
    """The revisions of a Classifier that are never pruned: of its history, and the ones in use."""
    status = classifier.status
    named = (current_revision(classifier.spec), status.served_revision, status.settled_revision, status.training_revision)
    return frozenset(revision for revision in named if revision) | {entry.revision for entry in status.history}


def find_waste(
    objects: Iterable[StoredObject], references: Mapping[tuple[str, str], References], spared_since: datetime
) -> list[str]:
    """Keys of what lies below `tenants/` and nothing refers to. Pure.

    Of a classifier that is not there, nothing goes while something of it is younger than `spared_since`: an upload may wait for
    its Classifier to be created, and a restored backup for its objects.
    """
    by_classifier: dict[tuple[str, str], list[tuple[str, list[str], StoredObject]]] = {}
    for item in objects:
        parts = item.key.split("/")
        if len(parts) >= 5 and parts[0] == TENANTS and parts[2] in KINDS:
            by_classifier.setdefault((parts[1], parts[3]), []).append((parts[2], parts[4:], item))
    waste: list[str] = []
    for classifier, found in by_classifier.items():
        kept = references.get(classifier)
        if kept is None:
            if all(item.modified_at < spared_since for _, _, item in found):
                waste += [item.key for _, _, item in found]
        else:
            waste += [
                item.key for kind, parts, item in found if item.modified_at < spared_since and not kept.keeps(kind, parts)
            ]
    return waste


class StoreSweep:
    """Deletes what is of no use any more from the object store of these namespaces (none: of every namespace)."""

    def __init__(self, client: ClusterClient, store: ObjectStore, namespaces: tuple[str, ...]) -> None:
        self._client = client
        self._store = store
        self._namespaces = namespaces
        self._undeletable: frozenset[str] = frozenset()
        """Keys that the last sweep failed to delete."""
        self._definitions: dict[str, _ReadDefinition] = {}
        """By key, those that the last sweep read or knew: few change between two sweeps, and each would be a request."""

    async def sweep(self, now: datetime, minimum_age: timedelta) -> int:
        """Delete what nothing refers to; says how many objects went.

        What cannot be read or deleted is passed over: one tenant's objects never stand before those of others.

        Raises:
            ClusterError, StoreUnavailableError: nothing could be judged.
        """
        prefixes = [f"{TENANTS}/{namespace}" for namespace in self._namespaces] or [TENANTS]
        objects = [item for prefix in prefixes for item in await self._store.list_objects(prefix)]
        if not objects:
            return 0
        definitions = {item.key: item for item in objects if item.key.endswith(f"/{DEFINITION}")}
        self._definitions = {key: known for key, known in self._definitions.items() if known.fits(definitions.get(key))}
        references = {}
        for classifier in await self._living():
            if classifier.classifier_id is not None:
                references[(classifier.namespace, classifier.classifier_id)] = await self._references(classifier, definitions)
        waste = find_waste(objects, references, now - minimum_age)
        deleted = await self._delete(waste)
        if deleted:
            logger.info("store swept", extra={"deleted": deleted, "examined": len(objects)})
        return deleted

    async def delete_classifier(self, namespace: str, classifier_id: str) -> int:
        """Delete all that is stored for a classifier that was seen to be deleted, unless one with its id lives again."""
        if any(
            classifier.namespace == namespace and classifier.classifier_id == classifier_id
            for classifier in await self._living(namespace)
        ):
            return 0
        location = ClassifierLocation(namespace=namespace, classifier_id=classifier_id)
        deleted = 0
        for prefix in location.prefixes:
            deleted += await self._store.delete_prefix(prefix)
        if deleted:
            logger.info("stored bytes of a deleted classifier are gone", extra={"id": classifier_id, "deleted": deleted})
        return deleted

    async def _delete(self, keys: Sequence[str]) -> int:
        deleted = 0
        failed: set[str] = set()
        for key in sorted(keys, key=lambda key: key in self._undeletable):
            try:
                await self._store.delete(key)
                deleted += 1
            except ObjectStoreError as error:
                logger.warning("an object could not be deleted", extra={"key": key, "problem": str(error)})
                failed.add(key)
            if len(failed) >= FAILED_DELETES_LIMIT:
                logger.warning("the sweep is given up, the next one goes on", extra={"left": len(keys) - deleted})
                break
        self._undeletable = frozenset(failed)
        return deleted

    async def _living(self, namespace: str | None = None) -> list[Classifier]:
        scopes: Sequence[str | None] = (namespace,) if namespace is not None else (self._namespaces or (None,))
        found = []
        for scope in scopes:
            in_scope: list[Classifier] = []
            async for page in self._client.list_pages(CLASSIFIERS, scope):
                if page.first:
                    in_scope.clear()
                # One that does not fit its schema ends the sweep: what it refers to is unknown.
                in_scope += [parse_classifier(manifest) for manifest in page.items]
                del page
            found += in_scope
        return found

    async def _references(self, classifier: Classifier, definitions: Mapping[str, StoredObject]) -> References:
        status = classifier.status
        revisions = find_revisions(classifier)
        return References(
            revisions=revisions,
            training=(status.training_revision, status.attempt) if status.training_revision else None,
            uploads=await self._uploads(classifier, revisions, definitions),
        )

    async def _uploads(
        self, classifier: Classifier, revisions: frozenset[str], definitions: Mapping[str, StoredObject]
    ) -> frozenset[str] | None:
        assert classifier.classifier_id is not None
        location = ClassifierLocation(namespace=classifier.namespace, classifier_id=classifier.classifier_id)
        digests = set(find_upload_digests(definition(classifier.spec)))
        learned = {entry.revision for entry in classifier.status.history}
        for revision in revisions:
            key = location.definition_key(revision)
            if key not in definitions and revision not in learned:
                # It has no artifact, or one so new that its definition is the spec's.
                continue
            try:
                digests |= await self._read_definition(key, definitions.get(key))
            except ObjectNotFoundError:
                continue
            except (ObjectStoreError, ValueError, KeyError, TypeError, AttributeError) as error:
                logger.warning(
                    "a stored definition cannot be read, uploads are kept",
                    extra={"classifier": str(classifier), "revision": revision, "problem": str(error)},
                )
                return None
        return frozenset(digests)

    async def _read_definition(self, key: str, listed: StoredObject | None) -> frozenset[str]:
        """The uploads that a stored definition names; read only where it is not known as it was listed."""
        known = self._definitions.get(key)
        if known is not None:
            return known.uploads
        digests = find_upload_digests(parse_document(await read_document(self._store, key)))
        # Revisions of one classifier name mostly the same uploads.
        uploads = frozenset(sys.intern(digest) for digest in digests)
        if listed is not None:
            self._definitions[key] = _ReadDefinition(
                modified_at=listed.modified_at, size_bytes=listed.size_bytes, uploads=uploads
            )
        return uploads


@dataclass(frozen=True, kw_only=True, slots=True)
class _ReadDefinition:
    """A stored definition as it was when it was read: erasing user data writes it anew."""

    modified_at: datetime
    size_bytes: int
    uploads: frozenset[str]

    def fits(self, listed: StoredObject | None) -> bool:
        """Whether it is still what a listing tells of."""
        return listed is not None and (listed.modified_at, listed.size_bytes) == (self.modified_at, self.size_bytes)
