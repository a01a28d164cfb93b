"""Classifiers and their inference servers as the Kubernetes API holds them: read from watch caches, written with preconditions.

Reads for classify come from the caches; a miss, a classifier that answers nothing yet, and a broken watch are settled by one
live read. Whoever polls the details causes one live read a second, and is told from memory in between. What a live read or a
write of one's own brought is never forgotten in favour of something older. It must not know HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

from ocelli_cluster.client import ClusterClient, ConflictError, NotFoundError, UnreachableError
from ocelli_cluster.resource_cache import ResourceCache
from ocelli_cluster.resources import CLASSIFIERS, PODS

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, CREATED_AT_ANNOTATION, Classifier, Manifest, parse_classifier
from ocelli_api.lifecycle import Lifecycle, lifecycle
from ocelli_api.names import STEM_LIMIT, build_object_name, is_classifier_id
from ocelli_api.pods import COMPONENT_LABEL, REVISION_LABEL, Component, is_inference_server

logger = logging.getLogger(__name__)

FIELD_MANAGER = "ocelli-gateway"
GONE_SECONDS = 600.0
"""A deleted object is remembered for so long: longer than a cache may lag and still count as fresh."""
LIST_PATIENCE_SECONDS = 2.0
SINGLE_READS_LIMIT = 8
"""Of more classifiers than these the whole namespace is read in one go."""
CONFIRMED_SECONDS = 1.0
"""For so long a live read is repeated from memory while the watch says that nothing changed: at most the time that answers
which other replicas must know are held back.
"""
ABSENT_SECONDS = 1.0
"""For so long an id that there was no classifier of is not looked up again. Numbers are drawn at random: nobody asks for an id
before it was given out."""
BRIEFS_LIMIT = 20_000
_CONFIRMED_LIMIT = 2000
_ABSENT_LIMIT = 10_000
_NUMBER_DIGITS = 10


class ClassifierStoreError(Exception):
    """A Classifier could not be read or written."""


class ClassifierNotFoundError(ClassifierStoreError):
    """No such classifier in the namespace."""


class ClassifierChangedError(ClassifierStoreError):
    """Somebody else changed the object since it was read."""


class UnreadableClassifierError(ClassifierStoreError):
    """A Classifier holds something that this release does not know."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} cannot be read by this release; upgrade the gateway")
        self.name = name


class NameTakenError(ClassifierStoreError):
    """An object of that name exists."""


class NamespaceMissingError(ClassifierStoreError):
    """The namespace of these credentials does not exist."""

    def __init__(self, namespace: str) -> None:
        super().__init__(f"Namespace {namespace} of a credential set does not exist; create it")
        self.namespace = namespace


@dataclass(frozen=True, kw_only=True)
class KnownClassifier:
    """What classify needs of a Classifier."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    classifier_id: str
    display_name: str
    age_order: str
    """What is smaller is older."""
    served_revision: str | None
    ready_reason: str
    """The reason of its condition `Ready`: its state in one word. Empty where nobody has looked at it yet."""
    deleted: bool
    stalled: bool = False
    """A person must act: waiting is in vain."""


@dataclass(frozen=True, kw_only=True)
class BriefClassifier:
    """What the brief list needs of a Classifier: small, and dear to find out, since it takes the revision of a whole spec."""

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
    """Its own IP."""
    classifier_id: str
    revision: str
    takes_requests: bool
    """It is Ready and not terminating."""


@dataclass(kw_only=True)
class _NamespaceWatch:
    classifiers: ResourceCache[KnownClassifier | None]
    servers: ResourceCache[InferenceServer | None]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    started_at: float = field(default_factory=time.monotonic)
    gone: dict[str, float] = field(default_factory=dict)
    """UIDs of objects that were deleted here, and when: the cache may have them a little longer."""

    def is_synced(self) -> bool:
        """Whether a complete list of both was read."""
        return self.classifiers.synced.is_set() and self.servers.synced.is_set()

    def bury(self, uid: str) -> None:
        now = time.monotonic()
        self.gone = {key: at for key, at in self.gone.items() if now - at < GONE_SECONDS}
        self.gone[uid] = now


class ClassifierStore:
    """The Classifiers of the namespaces that credentials name, and of the one that has the built-in ones."""

    def __init__(self, client: ClusterClient, built_in_namespace: str) -> None:
        self._client = client
        self._watches: dict[str, _NamespaceWatch] = {}
        self._built_in_namespace = built_in_namespace
        self._confirmed: OrderedDict[tuple[str, str], tuple[float, Classifier]] = OrderedDict()
        """By namespace and id: the latest live read, and when it began."""
        self._briefs: OrderedDict[str, BriefClassifier] = OrderedDict()
        """By UID, the last ones listed."""
        self._absent: OrderedDict[tuple[str, str], float] = OrderedDict()
        """By namespace and id: when it began to be looked up in vain."""

    def watch_namespaces(self, namespaces: Iterable[str]) -> None:
        """Watch these namespaces, that of the built-in classifiers, and no others."""
        wanted = {*namespaces, self._built_in_namespace}
        for namespace in wanted - self._watches.keys():
            self._watches[namespace] = self._start(namespace)
        for namespace in self._watches.keys() - wanted:
            for task in self._watches.pop(namespace).tasks:
                task.cancel()

    async def close(self) -> None:
        """Stop watching."""
        tasks = [task for watch in self._watches.values() for task in watch.tasks]
        self._watches.clear()
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def unsynced(self) -> list[str]:
        """The namespaces of which no complete list was read yet. Any one is waited for only a moment where a tenant's was read,
        and that of the built-in ones in any case: it may be absent, or closed to the gateway.
        """
        patient_until = time.monotonic() - LIST_PATIENCE_SECONDS
        one_is_synced = any(watch.is_synced() for key, watch in self._watches.items() if key != self._built_in_namespace)
        return sorted(
            namespace
            for namespace, watch in self._watches.items()
            if not watch.is_synced()
            and (watch.started_at > patient_until or not (one_is_synced or namespace == self._built_in_namespace))
        )

    async def find(self, namespace: str, classifier_ids: Sequence[str]) -> dict[str, KnownClassifier]:
        """The classifiers of these ids as classify needs them; ids that there are none of are left out.

        Raises:
            ClusterError: a live read was needed and failed.
        """
        found: dict[str, KnownClassifier] = {}
        missing: list[str] = []
        watch = self._watches.get(namespace)
        wanted = [classifier_id for classifier_id in classifier_ids if may_exist(classifier_id)]
        cached = _find_cached(watch, namespace, wanted) if watch is not None and watch.classifiers.is_fresh() else {}
        for classifier_id in wanted:
            known = cached.get(classifier_id)
            # One that serves nothing may have begun to: another replica may have shown it as ready already.
            if known is not None and known.served_revision is not None:
                found[classifier_id] = known
            else:
                missing.append(classifier_id)
        # Who asks again and again for what was not there a moment ago causes no call.
        missing = [key for key in missing if key in cached or not self._was_absent(namespace, key, time.monotonic())]
        if len(missing) > SINGLE_READS_LIMIT:
            started_at = time.monotonic()
            everything = {known.classifier_id: known for known in await self._list_live(namespace)}
            found.update({key: everything[key] for key in missing if key in everything})
            self._note_absent(namespace, [key for key in missing if key not in everything], started_at)
        else:
            for classifier_id in missing:
                live = await self.find_live(namespace, classifier_id)
                if live is not None:
                    found[classifier_id] = live
        return found

    def knows_built_in(self) -> bool:
        """Whether it is known which built-in classifiers there are."""
        watch = self._watches.get(self._built_in_namespace)
        return watch is not None and watch.is_synced()

    def find_built_in(self, name: str) -> KnownClassifier | None:
        """The built-in classifier of that name, as far as the cache knows; None where there is none."""
        watch = self._watches.get(self._built_in_namespace)
        found = None if watch is None else watch.classifiers.get(self._built_in_namespace, name)
        return None if found is None or found.deleted else found

    async def find_live(self, namespace: str, classifier_id: str) -> KnownClassifier | None:
        """The same, read from the API server. Raises ClusterError."""
        try:
            return _project(await self._read(namespace, classifier_id))
        except ClassifierNotFoundError:
            return None

    async def find_all(self, namespace: str) -> list[KnownClassifier]:
        """Every classifier of a namespace, oldest first. Raises ClusterError."""
        watch = self._watches.get(namespace)
        if watch is not None and watch.classifiers.is_fresh():
            found = [item for item in watch.classifiers.values() if item is not None and item.uid not in watch.gone]
        else:
            found = await self._list_live(namespace)
        return sorted((item for item in found if not item.deleted), key=lambda item: (item.age_order, item.name))

    def servers(self, namespace: str, classifier_id: str, revision: str) -> list[InferenceServer]:
        """The inference servers of a revision that take requests, as far as the cache knows."""
        watch = self._watches.get(namespace)
        return [] if watch is None else _serving(watch.servers.values(), classifier_id, revision)

    async def servers_live(self, namespace: str, classifier_id: str, revision: str) -> list[InferenceServer]:
        """The same, read from the API server. Raises ClusterError."""
        selector = f"{COMPONENT_LABEL}={Component.INFERENCE},{CLASSIFIER_ID_LABEL}={classifier_id},{REVISION_LABEL}={revision}"
        listing = await self._client.list_objects(PODS, namespace, selector)
        watch = self._watches.get(namespace)
        if watch is not None:
            for item in listing.items:
                watch.servers.take(item)
        return _serving((_project_server(item) for item in listing.items), classifier_id, revision)

    async def read(self, namespace: str, classifier_id: str) -> Classifier:
        """The Classifier as the API server has it now; classify on this replica is at least as new from then on.

        Raises:
            ClassifierNotFoundError: there is none.
            UnreadableClassifierError: it was written by a later release.
            ClusterError: the API server cannot be asked.
        """
        started_at = time.monotonic()
        classifier = _parse(await self._read(namespace, classifier_id))
        self._confirmed[namespace, classifier_id] = started_at, classifier
        self._confirmed.move_to_end((namespace, classifier_id))
        # Whole specs may have a megabyte: those that nobody may be told any more go at once.
        while (
            len(self._confirmed) > _CONFIRMED_LIMIT or next(iter(self._confirmed.values()))[0] < started_at - CONFIRMED_SECONDS
        ):
            self._confirmed.popitem(last=False)
        return classifier

    async def read_polled(self, namespace: str, classifier_id: str) -> Classifier:
        """The Classifier as it was within the last second, and since then has not changed as far as the watch knows.

        Raises: as `read`.
        """
        read_at, confirmed = self._confirmed.get((namespace, classifier_id), (-math.inf, None))
        watch = self._watches.get(namespace)
        if confirmed is not None and watch is not None and time.monotonic() - read_at < CONFIRMED_SECONDS:
            known = watch.classifiers.get(namespace, confirmed.name)
            if (
                watch.classifiers.is_fresh()
                and known is not None
                and known.resource_version == confirmed.resource_version
                and known.uid not in watch.gone
            ):
                return confirmed
        return await self.read(namespace, classifier_id)

    async def read_all(self, namespace: str) -> list[Classifier]:
        """Every Classifier of a namespace that has an id, oldest first, as the API server has them now. Raises ClusterError.

        One that cannot be read is left out: it must not hide the others.
        """
        return (await self.read_all_but(namespace))[0]

    async def read_all_but(self, namespace: str) -> tuple[list[Classifier], list[UnreadableClassifierError]]:
        """The same, and those that cannot be read."""
        listing = await self._client.list_objects(CLASSIFIERS, namespace)
        found: list[Classifier] = []
        unreadable: list[UnreadableClassifierError] = []
        for item in listing.items:
            self._take(item)
            try:
                found.append(_parse(item))
            except UnreadableClassifierError as error:
                logger.warning("a Classifier is left out: %s", error, extra={"problem": str(error.__cause__)})
                unreadable.append(error)
        living = [item for item in found if item.classifier_id and not item.deleted]
        return sorted(living, key=lambda item: (item.age_order, item.name)), unreadable

    async def list_brief(self, namespace: str) -> list[BriefClassifier]:
        """The same as the brief list needs them. Only what has changed since the last list is parsed. Raises ClusterError."""
        listing = await self._client.list_objects(CLASSIFIERS, namespace)
        found: list[BriefClassifier] = []
        for item in listing.items:
            self._take(item)
            metadata = item["metadata"]
            brief = self._briefs.get(metadata["uid"])
            if brief is None or brief.resource_version != metadata["resourceVersion"]:
                try:
                    brief = BriefClassifier.of(_parse(item))
                except UnreadableClassifierError as error:
                    logger.warning("a Classifier is left out: %s", error, extra={"problem": str(error.__cause__)})
                    continue
                # One of the largest takes milliseconds: others have their turn between two of them.
                await asyncio.sleep(0)
            self._briefs[brief.uid] = brief
            self._briefs.move_to_end(brief.uid)
            found.append(brief)
        while len(self._briefs) > BRIEFS_LIMIT:
            self._briefs.popitem(last=False)
        return sorted(
            (item for item in found if item.classifier_id and not item.deleted), key=lambda item: (item.age_order, item.name)
        )

    async def create(self, manifest: Manifest, *, dry_run: bool = False) -> Classifier:
        """Create a Classifier.

        Raises:
            NameTakenError: the name is in use.
            NamespaceMissingError: there is no such namespace.
            ClusterError: it was refused, or nobody knows.
        """
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        try:
            created = await self._client.create(CLASSIFIERS, namespace, manifest, field_manager=FIELD_MANAGER, dry_run=dry_run)
        except ConflictError as error:
            if error.already_exists:
                raise NameTakenError(f"Classifier {namespace}/{name} exists") from error
            raise
        except NotFoundError as error:
            # Without the CRD the answer is 404 as well.
            if f'namespaces "{namespace}"' in error.message:
                raise NamespaceMissingError(namespace) from error
            raise
        except UnreachableError:
            created = await self._created_unheard(manifest)
        if not dry_run:
            self._take(created)
            self._absent.pop((namespace, created["metadata"].get("labels", {}).get(CLASSIFIER_ID_LABEL, "")), None)
        return parse_classifier(created)

    async def change(self, classifier: Classifier, patch: Manifest) -> Classifier:
        """Merge a patch into a Classifier, if it is still as it was read.

        Raises:
            ClassifierChangedError: it is not.
            ClassifierNotFoundError: it is gone.
            ClusterError: the change was refused, or nobody knows.
        """
        guarded = {**patch, "metadata": {"resourceVersion": classifier.resource_version}}
        try:
            changed = await self._client.patch(
                CLASSIFIERS, classifier.namespace, classifier.name, guarded, field_manager=FIELD_MANAGER
            )
        except ConflictError as error:
            raise ClassifierChangedError(f"{classifier} was changed meanwhile") from error
        except NotFoundError as error:
            raise ClassifierNotFoundError(f"{classifier} is gone") from error
        self._take(changed)
        return parse_classifier(changed)

    async def delete(self, classifier: Classifier) -> None:
        """Delete a Classifier; it is unknown on this replica from then on.

        Raises:
            ClassifierNotFoundError: it is gone already.
            ClusterError: it was refused, or nobody knows.
        """
        try:
            await self._client.delete(CLASSIFIERS, classifier.namespace, classifier.name, uid=classifier.uid)
        except (NotFoundError, ConflictError) as error:
            raise ClassifierNotFoundError(f"{classifier} is gone") from error
        watch = self._watches.get(classifier.namespace)
        if watch is not None:
            watch.bury(classifier.uid)

    async def _created_unheard(self, manifest: Manifest) -> Manifest:
        """The object of a create whose answer was lost. Raises UnreachableError where it is not there, or still unknown."""
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        try:
            found = await self._client.get(CLASSIFIERS, namespace, name)
        except NotFoundError as error:
            raise UnreachableError(f"the Kubernetes API did not create Classifier {namespace}/{name}") from error
        if found["spec"].get("classes") != manifest["spec"]["classes"]:
            raise NameTakenError(f"Classifier {namespace}/{name} exists")
        return found

    def _was_absent(self, namespace: str, classifier_id: str, now: float) -> bool:
        return now - self._absent.get((namespace, classifier_id), -math.inf) < ABSENT_SECONDS

    def _note_absent(self, namespace: str, classifier_ids: Iterable[str], now: float) -> None:
        for classifier_id in classifier_ids:
            self._absent[namespace, classifier_id] = now
            self._absent.move_to_end((namespace, classifier_id))
        while len(self._absent) > _ABSENT_LIMIT:
            self._absent.popitem(last=False)

    async def _list_live(self, namespace: str) -> list[KnownClassifier]:
        listing = await self._client.list_objects(CLASSIFIERS, namespace)
        for item in listing.items:
            self._take(item)
        found = (_project(item) for item in listing.items)
        return [known for known in found if known is not None and not known.deleted]

    async def _read(self, namespace: str, classifier_id: str) -> Manifest:
        if not may_exist(classifier_id):
            raise ClassifierNotFoundError(f"no classifier has an id of the form {classifier_id[:64]!r}")
        watch = self._watches.get(namespace)
        cached = None if watch is None else _find_cached(watch, namespace, [classifier_id]).get(classifier_id)
        absent = f"namespace {namespace} has no classifier {classifier_id}"
        started_at = time.monotonic()
        if cached is None and self._was_absent(namespace, classifier_id, started_at):
            raise ClassifierNotFoundError(absent)
        name = build_object_name(classifier_id) if cached is None else cached.name
        try:
            found = [await self._client.get(CLASSIFIERS, namespace, name)]
        except NotFoundError:
            found = []
        if not any(_is_alive(item, classifier_id) for item in found):
            # One that a manifest made has any name.
            listing = await self._client.list_objects(CLASSIFIERS, namespace, f"{CLASSIFIER_ID_LABEL}={classifier_id}")
            found = [item for item in listing.items if _is_alive(item, classifier_id)]
        if not found:
            self._note_absent(namespace, [classifier_id], started_at)
            raise ClassifierNotFoundError(absent)
        self._take(found[0])
        return found[0]

    def _take(self, manifest: Manifest) -> None:
        watch = self._watches.get(manifest["metadata"]["namespace"])
        if watch is not None:
            watch.classifiers.take(manifest)

    def _start(self, namespace: str) -> _NamespaceWatch:
        watch = _NamespaceWatch(
            classifiers=ResourceCache(self._client, CLASSIFIERS, project=_project, namespace=namespace),
            servers=ResourceCache(
                self._client,
                PODS,
                project=_project_server,
                namespace=namespace,
                label_selector=f"{COMPONENT_LABEL}={Component.INFERENCE}",
            ),
        )
        watch.tasks = [asyncio.create_task(watch.classifiers.run()), asyncio.create_task(watch.servers.run())]
        return watch


def _parse(manifest: Manifest) -> Classifier:
    """Raises UnreadableClassifierError."""
    try:
        return parse_classifier(manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        metadata = manifest["metadata"]
        raise UnreadableClassifierError(f"Classifier {metadata['namespace']}/{metadata['name']}") from error


def may_exist(classifier_id: str) -> bool:
    """Whether any classifier may have this id: only such ids are looked up."""
    return is_classifier_id(classifier_id) and len(classifier_id) <= STEM_LIMIT + 1 + _NUMBER_DIGITS


def _find_cached(watch: _NamespaceWatch, namespace: str, classifier_ids: Sequence[str]) -> dict[str, KnownClassifier]:
    """Those of the ids that the cache has, found in one pass over it at most: requests may name thousands."""

    def lives(item: KnownClassifier | None, classifier_id: str) -> TypeGuard[KnownClassifier]:
        return item is not None and item.classifier_id == classifier_id and not item.deleted and item.uid not in watch.gone

    likely = {
        classifier_id: watch.classifiers.get(namespace, build_object_name(classifier_id)) for classifier_id in classifier_ids
    }
    found = {classifier_id: item for classifier_id, item in likely.items() if lives(item, classifier_id)}
    # One that a manifest made has any name.
    missing = likely.keys() - found.keys()
    for item in watch.classifiers.values() if missing else ():
        if item is not None and item.classifier_id in missing and lives(item, item.classifier_id):
            found.setdefault(item.classifier_id, item)
    return found


def _is_alive(manifest: Manifest, classifier_id: str) -> bool:
    known = _project(manifest)
    return known is not None and known.classifier_id == classifier_id and not known.deleted


def _project(manifest: Manifest) -> KnownClassifier | None:
    """None for one that has no id yet: nobody can ask for it."""
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


def _project_server(manifest: Manifest) -> InferenceServer | None:
    """None for a Pod that has no address yet, or is none of ours: what is sent to it are users' pictures."""
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


def _serving(servers: Iterable[InferenceServer | None], classifier_id: str, revision: str) -> list[InferenceServer]:
    return [
        server
        for server in servers
        if server is not None
        and server.takes_requests
        and server.classifier_id == classifier_id
        and server.revision == revision
    ]
