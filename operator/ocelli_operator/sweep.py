"""The sweep of the object store: it deletes orphans, that is, stored objects that no Classifier refers to.

It replaces a finalizer, which would block deletions while the operator is down. It lists the stored objects first and all
Classifiers afterwards, so that it sees the references to everything that it listed. What it deletes cannot be restored, so it
spares much: young objects, because an upload precedes its Classifier; objects that this installation has not seen as orphans
for an hour; the whole store if it belongs to another installation; a namespace with suspiciously many orphans, not counting
uploads that are marked as sent before their Classifier; and everything that an object which this release cannot parse may refer
to. Before it deletes the orphans of a Classifier it looks at that Classifier once more.

The data of a Classifier whose deletion was seen is deleted at once, or, if the store belongs to another installation, as soon
as it belongs to this one.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from ocelli_api.classifier import CLASSIFIER_ID_LABEL
from ocelli_api.names import is_classifier_id
from ocelli_cluster.client import ClusterClient, ForbiddenError
from ocelli_cluster.resources import CLASSIFIERS, ObjectKey
from ocelli_operator.orphan_ages import OrphanAges
from ocelli_operator.references import (
    KEEPS_EVERYTHING,
    LiveClassifiers,
    ReferenceReader,
    References,
    StoredClassifier,
    StoredKey,
    find_ids,
    parse_key,
)
from ocelli_operator.store_owner import Ownership, claim_store
from ocelli_storage.layout import DEFINITION, PENDING, SOURCES, TENANTS, UPLOADS, ClassifierLocation
from ocelli_storage.object_store import ObjectStore, ObjectStoreError, StoredObject

logger = logging.getLogger(__name__)

FAILED_DELETES_LIMIT = 20
"""A sweep ends after this many failed deletes: each may take seconds, and its list of references gets old."""
ALLOWANCE_OBJECTS = 20
"""This many orphans of existing Classifiers are deleted with any share: as many objects as two Classifiers have."""
NAMED_NAMESPACES_LIMIT = 5
"""A message names at most this many namespaces."""


class OtherInstallationError(Exception):
    """The store belongs to another installation, so nothing in it may be deleted."""

    def __init__(self, ownership: Ownership) -> None:
        self.ownership = ownership
        super().__init__(f"the object store belongs to the installation {ownership.owner}, not to {ownership.installation}")


class ResourceGoneError(Exception):
    """The CRD is being deleted, or was: its Classifiers disappear without a request to delete them."""


class StopReason(StrEnum):
    """Why the store, or some namespaces, are not swept."""

    OTHER_INSTALLATION = "OtherInstallation"
    SHARE_EXCEEDED = "ShareExceeded"


@dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """What is swept, and with which limits."""

    namespaces: tuple[str, ...]
    """Empty: every namespace."""
    minimum_age: timedelta
    limit_percent: int
    adopted_installation: str
    """The installation whose store is taken over; empty: none."""


@dataclass(frozen=True, kw_only=True)
class SweepReport:
    """The result of a sweep."""

    deleted: int = 0
    stopped: StopReason | None = None
    stopped_namespaces: tuple[str, ...] = ()
    """The namespaces that were not swept; empty if the reason applies to the whole store."""
    message: str = ""
    """Why the sweep was stopped, and what to do."""
    lost_artifacts: Mapping[ObjectKey, str] = field(default_factory=dict)
    """By Classifier: the served revision whose artifact is missing from the store."""


def find_orphans(
    objects: Iterable[StoredObject], references: Mapping[StoredClassifier, References], spared_since: datetime
) -> list[StoredKey]:
    """The keys of objects of classifiers that nothing refers to. Pure.

    The data of an absent classifier is spared as a whole while any of it is younger than `spared_since`: an upload may precede
    its Classifier, and the data of a backup its objects.
    """
    by_classifier: dict[StoredClassifier, list[tuple[StoredKey, StoredObject]]] = defaultdict(list)
    for item in objects:
        if (key := parse_key(item.key)) is not None:
            by_classifier[key.classifier].append((key, item))
    orphans: list[StoredKey] = []
    for classifier, found in by_classifier.items():
        kept = references.get(classifier)
        if kept is not None:
            orphans += [key for key, item in found if item.modified_at < spared_since and not kept.keeps(key)]
        elif all(item.modified_at < spared_since for _, item in found):
            orphans += [key for key, _ in found]
    return orphans


def find_pending(objects: Iterable[StoredObject]) -> set[StoredClassifier]:
    """The classifiers, existing or not, whose uploads were sent before a Classifier refers to them. Pure."""
    keys = filter(None, (parse_key(item.key) for item in objects))
    return {key.classifier for key in keys if key.kind == UPLOADS and key.path == (PENDING,)}


class StoreSweep:
    """Deletes orphans from the object store. Each operator creates one when it starts to lead.

    `identify` returns the name of this installation.
    """

    def __init__(
        self, client: ClusterClient, store: ObjectStore, settings: SweepSettings, identify: Callable[[], Awaitable[str]]
    ) -> None:
        self._client = client
        self._store = store
        self._settings = settings
        self._identify = identify
        self._ages = OrphanAges(store)
        self._references = ReferenceReader(store)
        self._undeletable: frozenset[StoredKey] = frozenset()
        """Keys that the last sweep failed to delete."""

    async def sweep(self, now: datetime) -> SweepReport:
        """Delete orphans.

        Objects that cannot be read or deleted are skipped, so that one tenant's objects never block the sweep of others.

        Raises:
            ClusterError, StoreUnavailableError: nothing could be decided.
        """
        ownership = await self._claim()
        prefixes = [f"{TENANTS}/{namespace}" for namespace in self._settings.namespaces] or [TENANTS]
        objects = [item for prefix in prefixes for item in await self._store.list_objects(prefix)]
        live = await self._list_classifiers({item.key: item for item in objects if item.key.endswith(f"/{DEFINITION}")})
        lost = await self._find_lost(live, objects)
        if not ownership.is_ours:
            message = (
                f"the object store belongs to the installation {ownership.owner}, so this one, {ownership.installation}, does "
                "not sweep it; give each installation its own store, or, if the other one no longer exists, set "
                f"OCELLI_ADOPT_STORE (in the chart: store.adopt) to {ownership.owner}"
            )
            return SweepReport(stopped=StopReason.OTHER_INSTALLATION, message=message, lost_artifacts=lost)
        objects = [item for item in objects if _namespace_of(item.key) not in live.forbidden]
        spared_since = now - self._settings.minimum_age
        all_orphans = find_orphans(objects, live.references, datetime.max.replace(tzinfo=now.tzinfo))
        since = await self._ages.note(ownership.installation, {_place_of(key) for key in all_orphans}, now)
        orphans = find_orphans(objects, live.references, spared_since)
        due = [key for key in orphans if since.get(_place_of(key), now) <= spared_since]
        pending = find_pending(objects)
        # They would make a namespace suspicious, although no Classifier can be missing that refers to them.
        examined = [item for item in objects if not _is_upload_of(pending, parse_key(item.key))]
        unused = [key for key in orphans if not _is_upload_of(pending, key)]
        stopped = self._find_suspicious(examined, unused, live) & {key.namespace for key in due}
        deleted = await self._delete_due([key for key in due if key.namespace not in stopped], live)
        if deleted:
            logger.info("store swept", extra={"deleted": deleted, "examined": len(objects)})
        if not stopped:
            return SweepReport(deleted=deleted, lost_artifacts=lost)
        return SweepReport(
            deleted=deleted,
            stopped=StopReason.SHARE_EXCEEDED,
            stopped_namespaces=tuple(sorted(stopped)),
            message=_describe_suspicious(sorted(stopped), examined, unused),
            lost_artifacts=lost,
        )

    async def delete_classifier(self, target: StoredClassifier) -> int:
        """Delete all data of a classifier whose deletion was seen, unless a Classifier with its id exists again. Returns the
        number of deleted objects.

        Raises:
            ResourceGoneError: the CRD is being deleted, or was.
            OtherInstallationError: the data may be in use there, by the Classifier that this one is a copy of.
            ClusterError, StoreUnavailableError: try again.
        """
        namespace, classifier_id = target
        async for page in self._client.list_pages(CLASSIFIERS, namespace):
            if any(classifier_id in find_ids(manifest) for manifest in page.items):
                return 0
            del page
        ownership = await self._claim()
        if not ownership.is_ours:
            raise OtherInstallationError(ownership)
        await self.check_resource()
        location = ClassifierLocation(namespace=namespace, classifier_id=classifier_id)
        deleted = sum([await self._store.delete_prefix(prefix) for prefix in location.prefixes])
        if deleted:
            logger.info("stored data of a deleted Classifier deleted", extra={"id": classifier_id, "deleted": deleted})
        return deleted

    async def check_resource(self) -> None:
        """Raises ResourceGoneError if the CRD is being deleted, or was; ClusterError if that is unknown."""
        if not await self._client.accepts(CLASSIFIERS):
            raise ResourceGoneError(f"{CLASSIFIERS.plural}.{CLASSIFIERS.group} is being deleted, with every Classifier")

    async def _claim(self) -> Ownership:
        return await claim_store(self._store, await self._identify(), self._settings.adopted_installation)

    def _find_suspicious(
        self, objects: Iterable[StoredObject], orphans: Sequence[StoredKey], live: LiveClassifiers
    ) -> set[str]:
        """Namespaces with so many orphans that Classifiers may be missing rather than deleted."""
        stored = Counter(_namespace_of(item.key) for item in objects)
        unused = Counter(key.namespace for key in orphans)
        missing = Counter(key.namespace for key in orphans if key.classifier not in live.references)
        return {
            namespace
            for namespace, count in unused.items()
            if missing[namespace] > (allowed := stored[namespace] * self._settings.limit_percent // 100)
            or count > max(allowed, ALLOWANCE_OBJECTS)
        }

    async def _delete_due(self, keys: Sequence[StoredKey], live: LiveClassifiers) -> int:
        """Delete the keys that are still orphans, classifier by classifier. Returns the number of deleted objects."""
        by_classifier: dict[StoredClassifier, list[StoredKey]] = defaultdict(list)
        for key in keys:
            by_classifier[key.classifier].append(key)
        # Keys that could not be deleted last time come last, so that they do not block the others.
        order = sorted(by_classifier, key=lambda classifier: self._undeletable.issuperset(by_classifier[classifier]))
        deleted = 0
        failed: set[StoredKey] = set()
        for classifier in order:
            orphans = await self._find_still_orphans(classifier, by_classifier[classifier], live)
            for key in sorted(orphans, key=lambda key: key in self._undeletable):
                try:
                    await self._store.delete(str(key))
                    deleted += 1
                except ObjectStoreError as error:
                    logger.warning("object could not be deleted", extra={"key": str(key), "error": str(error)})
                    failed.add(key)
                if len(failed) >= FAILED_DELETES_LIMIT:
                    logger.warning("sweep ended early; the next one continues", extra={"left": len(keys) - deleted})
                    self._undeletable = frozenset(failed)
                    return deleted
        self._undeletable = frozenset(failed)
        return deleted

    async def _find_still_orphans(
        self, classifier: StoredClassifier, keys: list[StoredKey], live: LiveClassifiers
    ) -> list[StoredKey]:
        """The keys that nothing refers to right before they are deleted: since the list, a Classifier may have been created,
        reverted or pinned."""
        namespace, classifier_id = classifier
        if not is_classifier_id(classifier_id):
            # No Classifier can have such an id, and it cannot be part of a selector.
            return keys
        listing = await self._client.list_objects(CLASSIFIERS, namespace, f"{CLASSIFIER_ID_LABEL}={classifier_id}")
        if classifier not in live.references:
            return [] if listing.items else keys
        if not listing.items:
            # It has just lost its label, or has just been deleted: the next sweep will see which.
            return []
        if {item["metadata"]["resourceVersion"] for item in listing.items} == live.versions[classifier]:
            return keys
        now = LiveClassifiers(definitions=live.definitions)
        for manifest in listing.items:
            await self._references.add(now, manifest)
        kept = now.references.get(classifier, KEEPS_EVERYTHING)
        return [key for key in keys if not kept.keeps(key)]

    async def _list_classifiers(self, definitions: Mapping[str, StoredObject]) -> LiveClassifiers:
        """All Classifiers of the namespaces that are not forbidden. Raises ClusterError, also if all are forbidden."""
        live = self._references.start(definitions)
        scopes: Sequence[str | None] = self._settings.namespaces or (None,)
        for scope in scopes:
            try:
                # A list that restarts delivers some Classifiers twice.
                async for page in self._client.list_pages(CLASSIFIERS, scope):
                    for manifest in page.items:
                        await self._references.add(live, manifest)
                    del page
            except ForbiddenError:
                # The namespace was deleted with its Role, or does not exist yet. What is an orphan in it is unknown.
                if scope is None or len(live.forbidden) + 1 == len(scopes):
                    raise
                live.forbidden.append(scope)
        return live

    async def _find_lost(self, live: LiveClassifiers, objects: Iterable[StoredObject]) -> dict[ObjectKey, str]:
        """By Classifier, the served revision whose artifact is missing."""
        keys = {item.key for item in objects}
        return {
            classifier: revision
            for classifier, (revision, key) in live.served.items()
            # It may have been stored after the store was listed.
            if key not in keys and not await self._store.exists(key)
        }


def _namespace_of(key: str) -> str:
    return key.split("/")[1]


def _place_of(key: StoredKey) -> str:
    """What the age of an orphan is recorded for: an upload, or the folder of any other object, so that there are few."""
    return str(key) if key.kind in (UPLOADS, SOURCES) else str(key).rsplit("/", 1)[0]


def _is_upload_of(classifiers: Set[StoredClassifier], key: StoredKey | None) -> bool:
    return key is not None and key.kind == UPLOADS and key.classifier in classifiers


def _describe_suspicious(namespaces: Sequence[str], objects: Iterable[StoredObject], orphans: Sequence[StoredKey]) -> str:
    stored, unused = Counter(_namespace_of(item.key) for item in objects), Counter(key.namespace for key in orphans)
    named = [f"{name} ({unused[name]} of {stored[name]} objects)" for name in namespaces[:NAMED_NAMESPACES_LIMIT]]
    if len(namespaces) > len(named):
        named.append(f"{len(namespaces) - len(named)} more")
    return (
        f"these namespaces are not swept, because no Classifier refers to so many of their stored objects: {', '.join(named)}; "
        "if Classifiers are missing, create or restore them; if all of these objects are orphans, set "
        "OCELLI_SWEEP_LIMIT_PERCENT to 100 until they are deleted; other namespaces are swept"
    )
