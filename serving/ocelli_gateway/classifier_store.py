"""Classifiers and their inference servers in the Kubernetes API: read from watch caches, written with preconditions.

Classify reads from the caches. A miss, a classifier that does not answer yet, and a broken watch cause one live read. Clients
that poll the details cause one live read a second, and get answers from memory in between. Results of live reads and of own
writes are never replaced by older ones. It must not know HTTP.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from ocelli_api.classifier import CLASSIFIER_ID_LABEL, Classifier, Manifest, parse_classifier
from ocelli_api.names import build_object_name
from ocelli_api.pods import COMPONENT_LABEL, REVISION_LABEL, Component
from ocelli_cluster.client import ClusterClient, ConflictError, NotFoundError, UnreachableError
from ocelli_cluster.resources import CLASSIFIERS, PODS
from ocelli_gateway.cards import Card
from ocelli_gateway.classifier_errors import (
    ClassifierChangedError,
    ClassifierNotFoundError,
    NamespaceMissingError,
    NameTakenError,
    UnreadableClassifierError,
)
from ocelli_gateway.known_classifiers import (
    BriefClassifier,
    InferenceServer,
    KnownClassifier,
    is_alive,
    log_unreadable,
    may_exist,
    parse_manifest,
    project_classifier,
    project_server,
    project_with_card,
)
from ocelli_gateway.namespace_watch import NamespaceWatch, select_servers
from ocelli_gateway.recent import Recent

FIELD_MANAGER = "ocelli-gateway"
LIST_PATIENCE_SECONDS = 2.0
SINGLE_READS_LIMIT = 8
"""For more classifiers than this the whole namespace is listed once."""
CONFIRMED_SECONDS = 1.0
"""For so long a live read is repeated from memory while the watch shows no change: at most the delay for other replicas."""
ABSENT_SECONDS = 1.0
"""For so long an unknown id is not looked up again. Ids are random: none is requested before create has returned it."""
BRIEFS_LIMIT = 20_000
_CONFIRMED_LIMIT = 2000
_ABSENT_LIMIT = 10_000


class ClassifierStore:
    """The Classifiers of the namespaces in the credential sets, and of the namespace with the built-in ones."""

    def __init__(self, client: ClusterClient, built_in_namespace: str) -> None:
        self._client = client
        self._watches: dict[str, NamespaceWatch] = {}
        self._built_in_namespace = built_in_namespace
        self._confirmed: OrderedDict[tuple[str, str], tuple[float, Classifier]] = OrderedDict()
        """By namespace and id: the latest live read, and when it began."""
        self._briefs: Recent[str, BriefClassifier] = Recent(BRIEFS_LIMIT)
        """By UID, those listed last."""
        self._absent: Recent[tuple[str, str], float] = Recent(_ABSENT_LIMIT)
        """By namespace and id: when the last look-up began that found nothing."""

    def watch_namespaces(self, namespaces: Iterable[str]) -> None:
        """Watch these namespaces, the namespace of the built-in classifiers, and no others."""
        wanted = {*namespaces, self._built_in_namespace}
        for namespace in wanted - self._watches.keys():
            self._watches[namespace] = NamespaceWatch(self._client, namespace)
        for namespace in self._watches.keys() - wanted:
            self._watches.pop(namespace).close()

    async def close(self) -> None:
        """Stop watching."""
        watches = list(self._watches.values())
        self._watches.clear()
        for watch in watches:
            watch.close()
        await asyncio.gather(*(task for watch in watches for task in watch.tasks), return_exceptions=True)

    def unsynced(self) -> list[str]:
        """The namespaces that were not listed completely yet.

        Once one tenant's namespace was listed, the others count for a moment only. So does the built-in namespace in any case:
        it may not exist, or be forbidden to the gateway.
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
        """The classifiers of these ids as classify needs them; unknown ids are left out.

        Raises:
            ClusterError: a live read was needed and failed.
        """
        watch = self._watches.get(namespace)
        wanted = [classifier_id for classifier_id in classifier_ids if may_exist(classifier_id)]
        cached = watch.find(wanted) if watch is not None and watch.classifiers.is_fresh() else {}
        # A classifier that serves nothing is read: another replica may already have shown it as ready.
        found = {key: cached[key] for key in wanted if key in cached and cached[key].served_revision is not None}
        started_at = time.monotonic()
        # Clients that ask repeatedly for an unknown id cause no call.
        missing = [
            key for key in wanted if key not in found and (key in cached or not self._was_absent(namespace, key, started_at))
        ]
        if len(missing) > SINGLE_READS_LIMIT:
            everything = {known.classifier_id: known for known in await self._list_live(namespace)}
            for key in missing:
                if key in everything:
                    found[key] = everything[key]
                else:
                    self._absent.remember((namespace, key), started_at)
        else:
            for classifier_id in missing:
                live = await self.find_live(namespace, classifier_id)
                if live is not None:
                    found[classifier_id] = live
        return found

    def knows_built_in(self) -> bool:
        """Whether the list of built-in classifiers was read."""
        watch = self._watches.get(self._built_in_namespace)
        return watch is not None and watch.is_synced()

    def find_built_in(self, name: str) -> KnownClassifier | None:
        """The built-in classifier of that name in the cache; None where there is none."""
        watch = self._watches.get(self._built_in_namespace)
        found = None if watch is None else watch.classifiers.get(self._built_in_namespace, name)
        return None if found is None or found.deleted else found

    async def find_live(self, namespace: str, classifier_id: str) -> KnownClassifier | None:
        """The same as `find`, read from the API server. Raises ClusterError."""
        try:
            return project_classifier(await self._read(namespace, classifier_id))
        except ClassifierNotFoundError:
            return None

    async def find_all(self, namespace: str) -> list[KnownClassifier]:
        """Every classifier of a namespace, oldest first. Raises ClusterError."""
        watch = self._watches.get(namespace)
        fresh = watch is not None and watch.classifiers.is_fresh()
        found = watch.living() if watch is not None and fresh else await self._list_live(namespace)
        return sorted(found, key=lambda item: (item.age_order, item.name))

    def servers(self, namespace: str, classifier_id: str, revision: str) -> list[InferenceServer]:
        """The inference servers of a revision in the cache that take requests."""
        watch = self._watches.get(namespace)
        return [] if watch is None else select_servers(watch.servers.find((classifier_id, revision)))

    async def servers_live(self, namespace: str, classifier_id: str, revision: str) -> list[InferenceServer]:
        """The same, read from the API server. Raises ClusterError."""
        selector = f"{COMPONENT_LABEL}={Component.INFERENCE},{CLASSIFIER_ID_LABEL}={classifier_id},{REVISION_LABEL}={revision}"
        listing = await self._client.list_objects(PODS, namespace, selector)
        watch = self._watches.get(namespace)
        if watch is not None:
            for item in listing.items:
                watch.servers.take(item)
        return select_servers(map(project_server, listing.items))

    async def read(self, namespace: str, classifier_id: str) -> Classifier:
        """The Classifier as the API server has it now; classify on this replica is at least as new from then on.

        Raises:
            ClassifierNotFoundError: there is none.
            UnreadableClassifierError: it was written by a later release.
            ClusterError: the API server did not answer.
        """
        started_at = time.monotonic()
        classifier = parse_manifest(await self._read(namespace, classifier_id))
        self._confirmed[namespace, classifier_id] = started_at, classifier
        self._confirmed.move_to_end((namespace, classifier_id))
        # A spec may have a megabyte: those that are too old to be used are dropped at once.
        while (
            len(self._confirmed) > _CONFIRMED_LIMIT or next(iter(self._confirmed.values()))[0] < started_at - CONFIRMED_SECONDS
        ):
            self._confirmed.popitem(last=False)
        return classifier

    async def read_polled(self, namespace: str, classifier_id: str) -> Classifier:
        """The Classifier as it was within the last second, if the watch has shown no change since then.

        Raises: as `read`.
        """
        read_at, confirmed = self._confirmed.get((namespace, classifier_id), (-math.inf, None))
        watch = self._watches.get(namespace)
        if (
            confirmed is not None
            and watch is not None
            and time.monotonic() - read_at < CONFIRMED_SECONDS
            and watch.is_unchanged(confirmed.name, confirmed.resource_version)
        ):
            return confirmed
        return await self.read(namespace, classifier_id)

    async def read_all(self, namespace: str) -> tuple[list[Classifier], list[UnreadableClassifierError]]:
        """Every Classifier of a namespace that has an id, oldest first, as the API server has them now. Raises ClusterError.

        Those that cannot be read come apart: one of them must not hide the others.
        """
        listing = await self._client.list_objects(CLASSIFIERS, namespace)
        found: list[Classifier] = []
        unreadable: list[UnreadableClassifierError] = []
        for item in listing.items:
            self._take(item)
            try:
                found.append(parse_manifest(item))
            except UnreadableClassifierError as error:
                log_unreadable(error)
                unreadable.append(error)
        living = [item for item in found if item.classifier_id and not item.deleted]
        return sorted(living, key=lambda item: (item.age_order, item.name)), unreadable

    async def list_brief(self, namespace: str) -> list[BriefClassifier]:
        """The same for the brief list. Only objects that changed since the last list are parsed. Raises ClusterError."""
        listing = await self._client.list_objects(CLASSIFIERS, namespace)
        found: list[BriefClassifier] = []
        for item in listing.items:
            self._take(item)
            metadata = item["metadata"]
            brief = self._briefs.get(metadata["uid"])
            if brief is None or brief.resource_version != metadata["resourceVersion"]:
                try:
                    brief = BriefClassifier.of(parse_manifest(item))
                except UnreadableClassifierError as error:
                    log_unreadable(error)
                    continue
                # Parsing one of the largest takes milliseconds: other tasks run between two of them.
                await asyncio.sleep(0)
            self._briefs.remember(brief.uid, brief)
            found.append(brief)
        living = [item for item in found if item.classifier_id and not item.deleted]
        return sorted(living, key=lambda item: (item.age_order, item.name))

    async def list_cards(self, namespace: str) -> list[Card]:
        """The cards of the same, from the watch cache while it is fresh. Raises ClusterError."""
        watch = self._watches.get(namespace)
        if watch is not None and watch.classifiers.is_fresh():
            known = watch.living()
        else:
            listing = await self._client.list_objects(CLASSIFIERS, namespace)
            projected = map(project_with_card, listing.items)
            known = [item for item in projected if item is not None and not item.deleted]
        return [item.card for item in sorted(known, key=lambda item: (item.age_order, item.name)) if item.card is not None]

    def find_watch(self, namespace: str) -> NamespaceWatch | None:
        """The watch of a namespace; None where no credential set has it any more."""
        return self._watches.get(namespace)

    async def create(self, manifest: Manifest, *, dry_run: bool = False) -> Classifier:
        """Create a Classifier.

        Raises:
            NameTakenError: the name is in use.
            NamespaceMissingError: there is no such namespace.
            ClusterError: it was refused, or the result is unknown.
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
            created = await self._find_created(manifest)
        if not dry_run:
            self._take(created)
            self._absent.pop((namespace, created["metadata"].get("labels", {}).get(CLASSIFIER_ID_LABEL, "")), None)
        return parse_classifier(created)

    async def change(self, classifier: Classifier, patch: Manifest) -> Classifier:
        """Merge a patch into a Classifier, if it has not changed since it was read.

        Raises:
            ClassifierChangedError: it has.
            ClassifierNotFoundError: it is gone.
            ClusterError: the change was refused, or the result is unknown.
        """
        guarded = {**patch, "metadata": {"resourceVersion": classifier.resource_version}}
        try:
            changed = await self._client.patch(
                CLASSIFIERS, classifier.namespace, classifier.name, guarded, field_manager=FIELD_MANAGER
            )
        except ConflictError as error:
            raise ClassifierChangedError(f"{classifier} was changed meanwhile") from error
        except NotFoundError as error:
            raise ClassifierNotFoundError(classifier.classifier_id or classifier.name) from error
        self._take(changed)
        return parse_classifier(changed)

    async def delete(self, classifier: Classifier) -> None:
        """Delete a Classifier; it is unknown on this replica from then on.

        Raises:
            ClassifierNotFoundError: it is gone already.
            ClusterError: it was refused, or the result is unknown.
        """
        try:
            await self._client.delete(CLASSIFIERS, classifier.namespace, classifier.name, uid=classifier.uid)
        except (NotFoundError, ConflictError) as error:
            raise ClassifierNotFoundError(classifier.classifier_id or classifier.name) from error
        watch = self._watches.get(classifier.namespace)
        if watch is not None:
            watch.mark_deleted(classifier.uid)

    async def _find_created(self, manifest: Manifest) -> Manifest:
        """The object of a create whose answer was lost. Raises UnreachableError where it does not exist, or cannot be read."""
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

    async def _list_live(self, namespace: str) -> list[KnownClassifier]:
        listing = await self._client.list_objects(CLASSIFIERS, namespace)
        for item in listing.items:
            self._take(item)
        found = (project_classifier(item) for item in listing.items)
        return [known for known in found if known is not None and not known.deleted]

    async def _read(self, namespace: str, classifier_id: str) -> Manifest:
        if not may_exist(classifier_id):
            raise ClassifierNotFoundError(classifier_id)
        watch = self._watches.get(namespace)
        cached = None if watch is None else watch.find([classifier_id]).get(classifier_id)
        started_at = time.monotonic()
        if cached is None and self._was_absent(namespace, classifier_id, started_at):
            raise ClassifierNotFoundError(classifier_id)
        name = build_object_name(classifier_id) if cached is None else cached.name
        try:
            found = [await self._client.get(CLASSIFIERS, namespace, name)]
        except NotFoundError:
            found = []
        if not any(is_alive(item, classifier_id) for item in found):
            # A classifier that was created from a manifest may have any name.
            listing = await self._client.list_objects(CLASSIFIERS, namespace, f"{CLASSIFIER_ID_LABEL}={classifier_id}")
            found = [item for item in listing.items if is_alive(item, classifier_id)]
        if not found:
            self._absent.remember((namespace, classifier_id), started_at)
            raise ClassifierNotFoundError(classifier_id)
        self._take(found[0])
        return found[0]

    def _take(self, manifest: Manifest) -> None:
        watch = self._watches.get(manifest["metadata"]["namespace"])
        if watch is not None:
            watch.classifiers.take(manifest)
