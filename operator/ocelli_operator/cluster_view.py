"""All that the operator watches: Classifiers and their children, found by the Classifier they belong to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from ocelli_cluster.client import ClusterClient
from ocelli_cluster.resource_cache import Change, ResourceCache, Unreadable, WatchTimeouts
from ocelli_cluster.resources import (
    AUTOSCALERS,
    CLASSIFIERS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    JOBS,
    NETWORK_POLICIES,
    NODES,
    PODS,
    SERVICES,
    ObjectKey,
    Resource,
)

from ocelli_api.classifier import Classifier, Manifest, parse_classifier
from ocelli_api.pods import CLASSIFIER_LABEL
from ocelli_operator.observed import (
    ChildIdentity,
    ChildKind,
    GpuNode,
    ObservedChild,
    ObservedDeployment,
    ObservedJob,
    ObservedPod,
    project_child,
    project_deployment,
    project_gpu_node,
    project_job,
    project_pod,
)
from ocelli_operator.starts import Family


class _Child(Protocol):
    @property
    def identity(self) -> ChildIdentity: ...


C = TypeVar("C", bound=_Child)

COMPLETE_POLL_SECONDS = 0.05
NODES_FORBIDDEN_LIMIT_SECONDS = 60.0
"""Where the operator may not see nodes it asks again this often: few installations get that right later."""

RESOURCE_OF_KIND: dict[ChildKind, Resource] = {
    ChildKind.JOB: JOBS,
    ChildKind.DEPLOYMENT: DEPLOYMENTS,
    ChildKind.SERVICE: SERVICES,
    ChildKind.AUTOSCALER: AUTOSCALERS,
    ChildKind.DISRUPTION_BUDGET: DISRUPTION_BUDGETS,
    ChildKind.NETWORK_POLICY: NETWORK_POLICIES,
}


@dataclass(frozen=True, kw_only=True)
class ViewScope:
    """What is watched: these namespaces (none: every namespace), with these timeouts."""

    namespaces: tuple[str, ...]
    timeouts: WatchTimeouts
    gpu_resource: str | None
    """What nodes are watched for; None: they are not watched."""


@dataclass(kw_only=True)
class _Children(Generic[C]):
    """Children of one kind, with an index by the Classifier that their label names."""

    resource: Resource
    project: Callable[[Manifest], C]
    caches: list[ResourceCache[C]] = field(default_factory=list)
    names: dict[ObjectKey, tuple[ObjectKey, ...]] = field(default_factory=dict)
    """In their order. Tuples, because most Classifiers have one child of a kind or two, and a set takes four times as much."""

    def of(self, classifier: ObjectKey) -> tuple[C, ...]:
        found = (cache.get(*key) for key in self.names.get(classifier, ()) for cache in self.caches)
        return tuple(child for child in found if child is not None)

    def index(self, key: ObjectKey, before: C | None, after: C | None) -> set[ObjectKey]:
        """Note the change; the Classifiers that it concerns."""
        concerned: set[ObjectKey] = set()
        for child, add in ((before, False), (after, True)):
            if child is None:
                continue
            owner = ObjectKey(child.identity.namespace, child.identity.classifier)
            concerned.add(owner)
            others = tuple(other for other in self.names.get(owner, ()) if other != key)
            self.names[owner] = tuple(sorted((*others, key))) if add else others
            if not self.names[owner]:
                del self.names[owner]
        return concerned


class ClusterView:
    """Caches of Classifiers, Jobs, Pods, Deployments, Services, autoscalers, disruption budgets and NetworkPolicies, and of
    nodes with GPUs.

    `on_change` is called with the key of the Classifier that a change concerns, `on_deleted` with a Classifier that went away,
    and whether its deletion was seen. A change of a node concerns none. Of several namespaces each is for itself: one that may
    not be read, because it was deleted with its Role, is closed, and the others go on.
    """

    def __init__(
        self,
        client: ClusterClient,
        scope: ViewScope,
        on_change: Callable[[ObjectKey], None],
        on_deleted: Callable[[Classifier, bool], None],
    ) -> None:
        self._client = client
        self._scope = scope
        self._on_change = on_change
        self._on_deleted = on_deleted
        self._jobs: _Children[ObservedJob] = _Children(resource=JOBS, project=project_job)
        self._pods: _Children[ObservedPod] = _Children(resource=PODS, project=project_pod)
        self._deployments: _Children[ObservedDeployment] = _Children(resource=DEPLOYMENTS, project=project_deployment)
        self._services: _Children[ObservedChild] = _Children(resource=SERVICES, project=project_child)
        self._autoscalers: _Children[ObservedChild] = _Children(resource=AUTOSCALERS, project=project_child)
        self._budgets: _Children[ObservedChild] = _Children(resource=DISRUPTION_BUDGETS, project=project_child)
        self._policies: _Children[ObservedChild] = _Children(resource=NETWORK_POLICIES, project=project_child)
        self._kinds: tuple[_Children[Any], ...] = (
            self._jobs,
            self._pods,
            self._deployments,
            self._services,
            self._autoscalers,
            self._budgets,
            self._policies,
        )
        self._nodes = None if scope.gpu_resource is None else self._build_node_cache(scope.gpu_resource)
        self._classifiers: list[ResourceCache[Classifier]] = []
        self._ids: dict[tuple[str, str], tuple[ObjectKey, ...]] = {}
        """By namespace and v3 id: the Classifiers that have it."""
        for namespace in self._namespaces:
            self._classifiers.append(
                ResourceCache(
                    client,
                    CLASSIFIERS,
                    project=parse_classifier,
                    namespace=namespace,
                    on_change=self._classifier_changed,
                    timeouts=scope.timeouts,
                )
            )
            for children in self._kinds:
                self._watch_children(children, namespace)

    async def run(self) -> None:
        """List and watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for cache in self._caches():
                tasks.create_task(cache.run())
            if self._nodes is not None:
                tasks.create_task(self._nodes.run())

    async def wait_until_synced(self) -> None:
        """Return when every kind was listed in every namespace that may be read, hence in one at least; nodes only if they may
        be."""
        for cache in self._caches():
            await cache.answered.wait()
        if self._nodes is not None:
            await self._nodes.answered.wait()
        while not any(self._is_complete(namespace) for namespace in self._namespaces):  # noqa: ASYNC110 - of many events
            await asyncio.sleep(COMPLETE_POLL_SECONDS)

    @property
    def contact_age_seconds(self) -> float:
        """The longest time for which one of the watches has heard nothing of the API server. Nodes may be forbidden, and do not
        count; nor do namespaces that are closed, unless all are."""
        ages = {
            namespace: max(cache.contact_age_seconds for cache in self._caches(namespace)) for namespace in self._namespaces
        }
        open_ages = [age for namespace, age in ages.items() if not self._find_refusal(namespace)]
        return max(open_ages or ages.values())

    @property
    def is_crd_missing(self) -> bool:
        """Whether the API server does not know Classifiers: their definition was deleted."""
        return any(cache.missing for cache in self._classifiers)

    def forbidden_namespaces(self) -> dict[str, str]:
        """The named namespaces that may not be read, each with a kind that is refused."""
        found = {namespace: self._find_refusal(namespace) for namespace in self._namespaces if namespace is not None}
        return {namespace: kind for namespace, kind in found.items() if kind}

    def complete_namespaces(self) -> set[str]:
        """The named namespaces of which every kind was listed, and may be."""
        return {namespace for namespace in self._namespaces if namespace is not None and self._is_complete(namespace)}

    def can_be_judged(self, classifier: ObjectKey) -> bool:
        """Whether everything about a Classifier is known as it is now: its namespace is open, and the object can be read."""
        namespace = classifier.namespace if self._scope.namespaces else None
        return self._is_complete(namespace) and not any(classifier in cache.unreadable for cache in self._classifiers)

    def unreadable(self) -> list[Unreadable]:
        """Every object that cannot be read as it is now, nodes too."""
        nodes = () if self._nodes is None else self._nodes.unreadable.values()
        return [item for cache in self._caches() for item in cache.unreadable.values()] + list(nodes)

    def classifier(self, key: ObjectKey) -> Classifier | None:
        """The Classifier of that key."""
        return next((found for cache in self._classifiers if (found := cache.get(*key)) is not None), None)

    def classifiers(self) -> list[Classifier]:
        """Every Classifier."""
        return [classifier for cache in self._classifiers for classifier in cache.values()]

    def classifiers_with_id(self, namespace: str, classifier_id: str) -> tuple[Classifier, ...]:
        """The Classifiers of a namespace that have a v3 id: more than one only until the newer one was given another."""
        found = (self.classifier(key) for key in self._ids.get((namespace, classifier_id), ()))
        return tuple(classifier for classifier in found if classifier is not None)

    def jobs(self, classifier: ObjectKey) -> tuple[ObservedJob, ...]:
        return self._jobs.of(classifier)

    def pods(self, classifier: ObjectKey) -> tuple[ObservedPod, ...]:
        return self._pods.of(classifier)

    def deployments(self, classifier: ObjectKey) -> tuple[ObservedDeployment, ...]:
        return self._deployments.of(classifier)

    def services(self, classifier: ObjectKey) -> tuple[ObservedChild, ...]:
        return self._services.of(classifier)

    def autoscalers(self, classifier: ObjectKey) -> tuple[ObservedChild, ...]:
        return self._autoscalers.of(classifier)

    def disruption_budgets(self, classifier: ObjectKey) -> tuple[ObservedChild, ...]:
        return self._budgets.of(classifier)

    def network_policies(self, classifier: ObjectKey) -> tuple[ObservedChild, ...]:
        return self._policies.of(classifier)

    def family(self, classifier: ObjectKey) -> Family:
        """What tells whether something of a Classifier is just starting."""
        found = self.classifier(classifier)
        uid = None if found is None else found.uid
        return Family(
            served_revision=None if found is None else found.status.served_revision,
            # Whoever can make Jobs could hold up everybody's by the label alone.
            jobs=tuple(job for job in self.jobs(classifier) if job.identity.owner_uid == uid),
            pods=self.pods(classifier),
            deployments=tuple(item for item in self.deployments(classifier) if item.identity.owner_uid == uid),
        )

    def gpu_nodes(self) -> tuple[GpuNode, ...]:
        """Nodes that have GPUs; none where nodes may not be seen."""
        if self._nodes is None or self._nodes.forbidden:
            return ()
        return tuple(node for node in self._nodes.values() if node is not None)

    def take_classifier(self, manifest: Manifest) -> None:
        """Take in the answer to a write of a Classifier, so that the next look does not miss it."""
        key = ObjectKey(manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        for cache in self._classifiers:
            if cache.namespace in (None, key.namespace):
                before = cache.get(*key)
                cache.take(manifest)
                self._index_id(key, before, cache.get(*key))

    def take_child(self, kind: ChildKind, manifest: Manifest) -> None:
        """Take in the answer to a write of a child."""
        namespace = manifest["metadata"]["namespace"]
        key = ObjectKey(namespace, manifest["metadata"]["name"])
        children = next(item for item in self._kinds if item.resource == RESOURCE_OF_KIND[kind])
        for cache in children.caches:
            if cache.namespace in (None, namespace):
                before = cache.get(*key)
                cache.take(manifest)
                children.index(key, before, cache.get(*key))

    @property
    def _namespaces(self) -> tuple[str | None, ...]:
        return self._scope.namespaces or (None,)

    def _is_complete(self, namespace: str | None) -> bool:
        return all(cache.synced.is_set() and not cache.forbidden for cache in self._caches(namespace))

    def _find_refusal(self, namespace: str | None) -> str:
        """A kind that may not be read in the namespace; empty where there is none."""
        return next((cache.resource.plural for cache in self._caches(namespace) if cache.forbidden), "")

    def _caches(self, namespace: str | None = None) -> Iterable[ResourceCache[Any]]:
        """Those of a namespace, or all."""
        for caches in (self._classifiers, *(children.caches for children in self._kinds)):
            yield from (cache for cache in caches if namespace is None or cache.namespace == namespace)

    def _build_node_cache(self, resource: str) -> ResourceCache[GpuNode | None]:
        return ResourceCache(
            self._client,
            NODES,
            project=lambda manifest: project_gpu_node(manifest, resource),
            timeouts=self._scope.timeouts,
            forbidden_limit_seconds=NODES_FORBIDDEN_LIMIT_SECONDS,
        )

    def _watch_children(self, children: _Children[Any], namespace: str | None) -> None:
        def changed(change: Change[Any]) -> None:
            for concerned in children.index(change.key, change.before, change.after):
                self._on_change(concerned)

        children.caches.append(
            ResourceCache(
                self._client,
                children.resource,
                project=children.project,
                namespace=namespace,
                label_selector=CLASSIFIER_LABEL,
                on_change=changed,
                timeouts=self._scope.timeouts,
            )
        )

    def _index_id(self, key: ObjectKey, before: Classifier | None, after: Classifier | None) -> None:
        for classifier, add in ((before, False), (after, True)):
            if classifier is None or classifier.classifier_id is None:
                continue
            place = (key.namespace, classifier.classifier_id)
            others = tuple(other for other in self._ids.get(place, ()) if other != key)
            self._ids[place] = (*others, key) if add else others
            if not self._ids[place]:
                del self._ids[place]

    def _classifier_changed(self, change: Change[Classifier]) -> None:
        self._index_id(change.key, change.before, change.after)
        gone = change.after is None or (change.before is not None and change.before.uid != change.after.uid)
        if change.before is not None and gone:
            self._on_deleted(change.before, change.deletion_seen)
        self._on_change(change.key)
