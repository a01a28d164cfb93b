"""The sweep of the object store: bytes that no living Classifier refers to go.

It takes the place of a finalizer, which would block deletions while the operator is down. What is judged is listed first, the
Classifiers after it, live and complete, so that whatever a living Classifier refers to is seen to be referred to. As nothing
brings back what was deleted in error, much is spared: what is young, because an upload comes before its Classifier; what this
installation has not seen unused for an hour; everything, where the store belongs to another installation; a namespace in which
suspiciously much is unused; and what an object may refer to that this release cannot read. Each Classifier is looked at once
more before anything of it goes.

Where a Classifier was seen to be deleted its bytes go at once, unless the store belongs to another installation: then they go
when it is this one's.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from ocelli_cluster.client import ClusterClient, ForbiddenError
from ocelli_cluster.resources import CLASSIFIERS, ObjectKey

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, Classifier, Manifest, parse_classifier
from ocelli_api.names import is_classifier_id
from ocelli_api.revision import current_revision, definition, find_upload_digests
from ocelli_operator.orphan_ages import OrphanAges, find_place
from ocelli_operator.store_owner import Ownership, claim_store
from ocelli_storage.documents import parse_document, read_document
from ocelli_storage.layout import ARTIFACT_METADATA, ARTIFACTS, DEFINITION, KINDS, TENANTS, TRAININGS, ClassifierLocation
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectStoreError, StoredObject

logger = logging.getLogger(__name__)

FAILED_DELETES_LIMIT = 20
"""So many failed deletes end a sweep: each may take seconds, and what was listed before may be wanted by then."""
ALLOWANCE_OBJECTS = 20
"""So many objects of living Classifiers go whatever their share is: about as many as two Classifiers have."""
TOLD_NAMESPACES_LIMIT = 5
"""A message has the numbers of so many namespaces at most."""


class OtherInstallationError(Exception):
    """The store belongs to another installation, so nothing in it may be deleted."""

    def __init__(self, ownership: Ownership) -> None:
        self.ownership = ownership
        super().__init__(f"the object store belongs to the installation {ownership.owner}, not to {ownership.installation}")


class ResourceGoneError(Exception):
    """Classifiers went because the resource itself is being deleted: nobody asked for any of them to be deleted."""


StoredClassifier = tuple[str, str]
"""Namespace and classifier id: what a part of the store belongs to."""


class StopReason(StrEnum):
    """Why nothing is swept, in the whole store or in some namespaces."""

    OTHER_INSTALLATION = "OtherInstallation"
    SHARE_EXCEEDED = "ShareExceeded"


@dataclass(frozen=True, kw_only=True)
class References:
    """What living Classifiers of one id refer to."""

    revisions: frozenset[str]
    """Revisions whose artifacts are kept."""
    trainings: frozenset[tuple[str, int]]
    """Revisions and attempts whose training documents are kept."""
    uploads: frozenset[str] | None
    """Digests of the uploads that are kept; None where nobody can tell: all of them."""
    everything: bool = False
    """All of it is kept: an object cannot be read."""

    def __or__(self, other: References) -> References:
        uploads = None if self.uploads is None or other.uploads is None else self.uploads | other.uploads
        return References(
            revisions=self.revisions | other.revisions,
            trainings=self.trainings | other.trainings,
            uploads=uploads,
            everything=self.everything or other.everything,
        )

    def keeps(self, kind: str, parts: Sequence[str]) -> bool:
        """Whether something is referred to: `parts` is what follows the classifier id in its key."""
        if self.everything:
            return True
        if kind == ARTIFACTS:
            return parts[0] in self.revisions
        if kind == TRAININGS:
            return len(parts) > 1 and any(parts[:2] == [revision, str(attempt)] for revision, attempt in self.trainings)
        return self.uploads is None or parts[0].removesuffix(".zip") in self.uploads


KEEPS_EVERYTHING = References(revisions=frozenset(), trainings=frozenset(), uploads=None, everything=True)


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """What is swept, and how carefully."""

    namespaces: tuple[str, ...]
    """Empty: every namespace."""
    minimum_age: timedelta
    limit_percent: int
    adopted_installation: str
    """Whose store is taken over; empty: nobody's."""


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """What a sweep did and found."""

    deleted: int = 0
    stopped: StopReason | None = None
    stopped_namespaces: tuple[str, ...] = ()
    """Those that were not swept; empty where the reason holds for the whole store."""
    message: str = ""
    """Why it was stopped, and what to do."""
    lost_artifacts: Mapping[ObjectKey, str] = field(default_factory=dict)
    """By Classifier, the served revision whose artifact is not in the store any more."""


@dataclass(kw_only=True)
class _Living:
    """The Classifiers that there are."""

    references: dict[StoredClassifier, References] = field(default_factory=dict)
    versions: dict[StoredClassifier, set[str]] = field(default_factory=lambda: defaultdict(set))
    """resourceVersions of the objects whose references these are."""
    served: dict[ObjectKey, tuple[str, str]] = field(default_factory=dict)
    """By Classifier: the served revision, and the key under which its artifact must be."""
    closed: list[str] = field(default_factory=list)
    """Namespaces that may not be read."""


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


def find_ids(manifest: Manifest) -> set[str]:
    """The classifier ids under which something may be stored for an object, by status and by label, whatever else it holds."""
    status, labels = manifest.get("status"), manifest["metadata"].get("labels")
    named = (
        status.get("classifierID") if isinstance(status, Mapping) else None,
        labels.get(CLASSIFIER_ID_LABEL) if isinstance(labels, Mapping) else None,
    )
    return {name for name in named if isinstance(name, str) and name}


class StoreSweep:
    """Deletes what is of no use any more from the object store. Made anew by each operator that begins to lead.

    `identify` says which installation this is.
    """

    def __init__(
        self, client: ClusterClient, store: ObjectStore, settings: SweepSettings, identify: Callable[[], Awaitable[str]]
    ) -> None:
        self._client = client
        self._store = store
        self._settings = settings
        self._identify = identify
        self._ages = OrphanAges(store)
        self._undeletable: frozenset[str] = frozenset()
        """Keys that the last sweep failed to delete."""
        self._definitions: dict[str, _ReadDefinition] = {}
        """By key, those that the last sweep read or knew: few change between two sweeps, and each would be a request."""

    async def sweep(self, now: datetime) -> SweepReport:
        """Delete what nothing refers to.

        What cannot be read or deleted is passed over: one tenant's objects never stand before those of others.

        Raises:
            ClusterError, StoreUnavailableError: nothing could be judged.
        """
        ownership = await self._claim()
        prefixes = [f"{TENANTS}/{namespace}" for namespace in self._settings.namespaces] or [TENANTS]
        objects = [item for prefix in prefixes for item in await self._store.list_objects(prefix)]
        definitions = {item.key: item for item in objects if item.key.endswith(f"/{DEFINITION}")}
        self._definitions = {key: known for key, known in self._definitions.items() if known.fits(definitions.get(key))}
        living = await self._find_living(definitions)
        lost = await self._find_lost(living, objects)
        if not ownership.is_ours:
            message = (
                f"the object store belongs to the installation {ownership.owner}, and this one, {ownership.installation}, does "
                "not sweep it; give each installation a store of its own, or, if that one is gone, set OCELLI_ADOPT_STORE "
                f"(in the chart: store.adopt) to {ownership.owner}"
            )
            return SweepReport(stopped=StopReason.OTHER_INSTALLATION, message=message, lost_artifacts=lost)
        objects = [item for item in objects if item.key.split("/")[1] not in living.closed]
        spared_since = now - self._settings.minimum_age
        unused = find_waste(objects, living.references, datetime.max.replace(tzinfo=now.tzinfo))
        noted = await self._ages.note(ownership.installation, {find_place(key) for key in unused}, now)
        waste = find_waste(objects, living.references, spared_since)
        due = [key for key in waste if noted.get(find_place(key), now) <= spared_since]
        stopped = self._find_suspicious(objects, waste, living) & {_namespace_of(key) for key in due}
        deleted = await self._delete_due([key for key in due if _namespace_of(key) not in stopped], living, definitions)
        if deleted:
            logger.info("store swept", extra={"deleted": deleted, "examined": len(objects)})
        if not stopped:
            return SweepReport(deleted=deleted, lost_artifacts=lost)
        return SweepReport(
            deleted=deleted,
            stopped=StopReason.SHARE_EXCEEDED,
            stopped_namespaces=tuple(sorted(stopped)),
            message=_tell_suspicious(sorted(stopped), objects, waste),
            lost_artifacts=lost,
        )

    async def delete_classifier(self, gone: StoredClassifier) -> int:
        """Delete all that is stored for a classifier that was seen to be deleted, unless one with its id lives again.

        In a store of another installation nothing is deleted: it may be in use there, by the Classifier that this one is a copy
        of.

        Raises:
            ResourceGoneError: the resource is being deleted, or is gone.
            OtherInstallationError: try again much later.
            ClusterError, StoreUnavailableError: try again.
        """
        namespace, classifier_id = gone
        async for manifests in self._list(namespace):
            if any(classifier_id in find_ids(manifest) for manifest in manifests):
                return 0
        ownership = await self._claim()
        if not ownership.is_ours:
            raise OtherInstallationError(ownership)
        await self.check_resource()
        location = ClassifierLocation(namespace=namespace, classifier_id=classifier_id)
        deleted = sum([await self._store.delete_prefix(prefix) for prefix in location.prefixes])
        if deleted:
            logger.info("stored bytes of a deleted classifier are gone", extra={"id": classifier_id, "deleted": deleted})
        return deleted

    async def check_resource(self) -> None:
        """Raises ResourceGoneError where the resource is being deleted, or is gone; ClusterError where that is unknown."""
        if not await self._client.accepts(CLASSIFIERS):
            raise ResourceGoneError(f"{CLASSIFIERS.plural}.{CLASSIFIERS.group} is being deleted, with every Classifier")

    async def _claim(self) -> Ownership:
        return await claim_store(self._store, await self._identify(), self._settings.adopted_installation)

    def _find_suspicious(self, objects: Iterable[StoredObject], waste: Iterable[str], living: _Living) -> set[str]:
        """Namespaces in which so much is unused that Classifiers may be missing rather than deleted."""
        stored = Counter(_namespace_of(item.key) for item in objects)
        unused, missing = Counter[str](), Counter[str]()
        for key in waste:
            _, namespace, _, classifier_id, *_ = key.split("/")
            unused[namespace] += 1
            missing[namespace] += (namespace, classifier_id) not in living.references
        return {
            namespace
            for namespace, count in unused.items()
            if missing[namespace] > (allowed := stored[namespace] * self._settings.limit_percent // 100)
            or count > max(allowed, ALLOWANCE_OBJECTS)
        }

    async def _delete_due(self, keys: Sequence[str], living: _Living, definitions: Mapping[str, StoredObject]) -> int:
        """Delete, one classifier after the other, what is still waste; says how much went."""
        by_classifier: dict[StoredClassifier, list[str]] = defaultdict(list)
        for key in keys:
            _, namespace, _, classifier_id, *_ = key.split("/")
            by_classifier[namespace, classifier_id].append(key)
        # What failed last time comes last: it must not keep the rest from being deleted.
        order = sorted(by_classifier, key=lambda classifier: self._undeletable.issuperset(by_classifier[classifier]))
        deleted = 0
        failed: set[str] = set()
        for classifier in order:
            still = await self._still_waste(classifier, by_classifier[classifier], living, definitions)
            for key in sorted(still, key=lambda key: key in self._undeletable):
                try:
                    await self._store.delete(key)
                    deleted += 1
                except ObjectStoreError as error:
                    logger.warning("an object could not be deleted", extra={"key": key, "problem": str(error)})
                    failed.add(key)
                if len(failed) >= FAILED_DELETES_LIMIT:
                    logger.warning("the sweep is given up, the next one goes on", extra={"left": len(keys) - deleted})
                    self._undeletable = frozenset(failed)
                    return deleted
        self._undeletable = frozenset(failed)
        return deleted

    async def _still_waste(
        self,
        classifier: StoredClassifier,
        keys: Sequence[str],
        living: _Living,
        definitions: Mapping[str, StoredObject],
    ) -> list[str]:
        """Those of the keys that nothing refers to now, right before they go: a Classifier may have been created, reverted or
        pinned since the Classifiers were listed."""
        namespace, classifier_id = classifier
        if not is_classifier_id(classifier_id):
            # No Classifier has such an id, and none is looked for by it.
            return list(keys)
        listing = await self._client.list_objects(CLASSIFIERS, namespace, f"{CLASSIFIER_ID_LABEL}={classifier_id}")
        if classifier not in living.references:
            return [] if listing.items else list(keys)
        if not listing.items:
            # Its label was taken away, or it was deleted just now: the next sweep sees which.
            return []
        if {item["metadata"]["resourceVersion"] for item in listing.items} == living.versions[classifier]:
            return list(keys)
        now = _Living()
        for manifest in listing.items:
            await self._add_living(now, manifest, definitions)
        kept = now.references.get(classifier, KEEPS_EVERYTHING)
        return [key for key in keys if not kept.keeps(key.split("/")[2], key.split("/")[4:])]

    async def _find_living(self, definitions: Mapping[str, StoredObject]) -> _Living:
        """Every Classifier of the namespaces that may be read.

        Raises ClusterError, ForbiddenError too where none may be read.
        """
        living = _Living()
        scopes: Sequence[str | None] = self._settings.namespaces or (None,)
        for scope in scopes:
            try:
                async for manifests in self._list(scope):
                    for manifest in manifests:
                        await self._add_living(living, manifest, definitions)
            except ForbiddenError:
                # It was deleted with its Role, or is not there yet: nobody can tell what is waste in it.
                if scope is None or len(living.closed) + 1 == len(scopes):
                    raise
                living.closed.append(scope)
        return living

    async def _list(self, namespace: str | None) -> AsyncIterator[Sequence[Manifest]]:
        """Classifiers page by page. Of a list that begins anew some come twice."""
        async for page in self._client.list_pages(CLASSIFIERS, namespace):
            yield page.items
            del page

    async def _add_living(self, living: _Living, manifest: Manifest, definitions: Mapping[str, StoredObject]) -> None:
        metadata = manifest["metadata"]
        found: dict[str, References] = {}
        try:
            classifier = parse_classifier(manifest)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # What it refers to is unknown: all that is stored for it stays.
            name = f"Classifier {metadata['namespace']}/{metadata['name']}"
            logger.warning("a Classifier cannot be read, all of it is kept", extra={"classifier": name, "problem": str(error)})
            found = dict.fromkeys(find_ids(manifest), KEEPS_EVERYTHING)
        else:
            if classifier.classifier_id is not None:
                found = {classifier.classifier_id: await self._references(classifier, definitions)}
                served, location = classifier.status.served_revision, _locate(classifier)
                if served is not None and not classifier.deleted:
                    key = ObjectKey(classifier.namespace, classifier.name)
                    living.served[key] = (served, location.artifact_key(served, ARTIFACT_METADATA))
        for classifier_id, references in found.items():
            stored = (metadata["namespace"], classifier_id)
            known = living.references.get(stored)
            # Of two objects with one id the newer gets another, but not at once.
            living.references[stored] = references if known is None else known | references
            living.versions[stored].add(metadata["resourceVersion"])

    async def _find_lost(self, living: _Living, objects: Iterable[StoredObject]) -> dict[ObjectKey, str]:
        keys = {item.key for item in objects}
        return {
            classifier: revision
            for classifier, (revision, key) in living.served.items()
            # What was stored since the listing is no loss.
            if key not in keys and not await self._store.exists(key)
        }

    async def _references(self, classifier: Classifier, definitions: Mapping[str, StoredObject]) -> References:
        status = classifier.status
        revisions = find_revisions(classifier)
        return References(
            revisions=revisions,
            trainings=frozenset([(status.training_revision, status.attempt)] if status.training_revision else []),
            uploads=await self._uploads(classifier, revisions, definitions),
        )

    async def _uploads(
        self, classifier: Classifier, revisions: frozenset[str], definitions: Mapping[str, StoredObject]
    ) -> frozenset[str] | None:
        location = _locate(classifier)
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


def _namespace_of(key: str) -> str:
    return key.split("/")[1]


def _tell_suspicious(namespaces: Sequence[str], objects: Iterable[StoredObject], waste: Iterable[str]) -> str:
    stored, unused = Counter(_namespace_of(item.key) for item in objects), Counter(_namespace_of(key) for key in waste)
    told = [f"{name} ({unused[name]} of {stored[name]} objects)" for name in namespaces[:TOLD_NAMESPACES_LIMIT]]
    if len(namespaces) > len(told):
        told.append(f"{len(namespaces) - len(told)} more")
    return (
        f"nothing is swept of what is stored for these namespaces, because no Classifier refers to so much of it: "
        f"{', '.join(told)}; if Classifiers are missing, create or restore them; if it is all waste, set "
        "OCELLI_SWEEP_LIMIT_PERCENT to 100 until it is gone; other namespaces are swept"
    )


def _locate(classifier: Classifier) -> ClassifierLocation:
    assert classifier.classifier_id is not None
    return ClassifierLocation(namespace=classifier.namespace, classifier_id=classifier.classifier_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class _ReadDefinition:
    """A stored definition as it was when it was read: erasing user data writes it anew."""

    modified_at: datetime
    size_bytes: int
    uploads: frozenset[str]

    def fits(self, listed: StoredObject | None) -> bool:
        """Whether it is still what a listing tells of."""
        return listed is not None and (listed.modified_at, listed.size_bytes) == (self.modified_at, self.size_bytes)
