"""The objects that the operator watches: Classifiers, their children, and nodes with GPUs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from ocelli_api.classifier import Classifier, Manifest, parse_classifier
from ocelli_api.pods import CLASSIFIER_LABEL
from ocelli_cluster.client import ClusterClient
from ocelli_cluster.resource_cache import Change, ResourceCache, UnreadableObject, WatchTimeouts
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
from ocelli_operator.observed import (
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
from ocelli_operator.starts import Workloads

COMPLETE_POLL_SECONDS = 0.05
NODES_FORBIDDEN_LIMIT_SECONDS = 60.0
"""While nodes are forbidden they are listed again this often: few installations add the right later."""

RESOURCE_OF_KIND: dict[ChildKind, Resource] = {
    ChildKind(resource.kind): resource
    for resource in (JOBS, DEPLOYMENTS, SERVICES, AUTOSCALERS, DISRUPTION_BUDGETS, NETWORK_POLICIES)
}
_PROJECTIONS: dict[Resource, Callable[[Manifest], Any]] = {
    CLASSIFIERS: parse_classifier,
    JOBS: project_job,
    PODS: project_pod,
    DEPLOYMENTS: project_deployment,
    SERVICES: project_child,
    AUTOSCALERS: project_child,
    DISRUPTION_BUDGETS: project_child,
    NETWORK_POLICIES: project_child,
}
"""What is kept of the objects of each kind."""


@dataclass(frozen=True, kw_only=True)
class ViewScope:
    """What is watched."""

    namespaces: tuple[str, ...]
    """Empty: every namespace."""
    timeouts: WatchTimeouts
    gpu_resource: str | None
    """The resource by which a node offers GPUs; None: nodes are not watched."""


class ClusterView:
    """One cache, and so one watch, for each kind and namespace. No other part of the operator watches.

    `on_change` is called with the key of the Classifier that a change concerns. `on_deleted` is called with a Classifier that
    disappeared and whether its deletion was seen. A change of a node concerns no Classifier. Namespaces are independent: if one
    is forbidden, because it was deleted together with its Role, the others continue.
    """

    def __init__(
        self,
        client: ClusterClient,
        scope: ViewScope,
        on_change: Callable[[ObjectKey], None],
        on_deleted: Callable[[Classifier, bool], None],
    ) -> None:
        self._namespaces: tuple[str | None, ...] = scope.namespaces or (None,)
        self._on_change = on_change
        self._on_deleted = on_deleted
        self._caches: dict[Resource, list[ResourceCache[Any]]] = {
            resource: [
                ResourceCache(
                    client,
                    resource,
                    project=project,
                    namespace=namespace,
                    label_selector=None if resource == CLASSIFIERS else CLASSIFIER_LABEL,
                    index_by=_find_id if resource == CLASSIFIERS else _find_owner,
                    on_change=self._classifier_changed if resource == CLASSIFIERS else self._child_changed,
                    timeouts=scope.timeouts,
                )
                for namespace in self._namespaces
            ]
            for resource, project in _PROJECTIONS.items()
        }
        self._nodes: ResourceCache[GpuNode | None] | None = None
        if (gpu_resource := scope.gpu_resource) is not None:
            self._nodes = ResourceCache(
                client,
                NODES,
                project=lambda manifest: project_gpu_node(manifest, gpu_resource),
                timeouts=scope.timeouts,
                forbidden_limit_seconds=NODES_FORBIDDEN_LIMIT_SECONDS,
            )

    async def run(self) -> None:
        """List and watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for cache in self._list_caches():
                tasks.create_task(cache.run())
            if self._nodes is not None:
                tasks.create_task(self._nodes.run())

    async def wait_until_synced(self) -> None:
        """Wait until every kind is listed in every namespace that is not forbidden, and in at least one namespace."""
        for cache in self._list_caches():
            await cache.answered.wait()
        if self._nodes is not None:
            await self._nodes.answered.wait()
        while not any(self._is_complete(namespace) for namespace in self._namespaces):  # noqa: ASYNC110 - of many events
            await asyncio.sleep(COMPLETE_POLL_SECONDS)

    @property
    def watch_age_seconds(self) -> float:
        """Seconds since the most silent watch last received something. Nodes do not count, because they may be forbidden.
        Forbidden namespaces count only if all namespaces are forbidden."""
        ages = {
            namespace: max(cache.watch_age_seconds for cache in self._list_caches(namespace)) for namespace in self._namespaces
        }
        allowed_ages = [age for namespace, age in ages.items() if not self._find_forbidden_kind(namespace)]
        return max(allowed_ages or ages.values())

    @property
    def is_crd_missing(self) -> bool:
        """Whether the API server does not know Classifiers, because their CRD was deleted."""
        return any(cache.missing for cache in self._caches[CLASSIFIERS])

    def forbidden_namespaces(self) -> dict[str, str]:
        """The configured namespaces that are forbidden, each with the plural of a kind that is."""
        found = {namespace: self._find_forbidden_kind(namespace) for namespace in self._namespaces if namespace is not None}
        return {namespace: plural for namespace, plural in found.items() if plural}

    def complete_namespaces(self) -> set[str]:
        """The configured namespaces in which every kind is listed and allowed."""
        return {namespace for namespace in self._namespaces if namespace is not None and self._is_complete(namespace)}

    def can_reconcile(self, classifier: ObjectKey) -> bool:
        """Whether the state of a Classifier is known: its namespace is complete, and the object can be parsed."""
        namespace = None if None in self._namespaces else classifier.namespace
        return self._is_complete(namespace) and not any(classifier in cache.unreadable for cache in self._caches[CLASSIFIERS])

    def unreadable(self) -> list[UnreadableObject]:
        """Every object that cannot be parsed, including nodes."""
        nodes = () if self._nodes is None else self._nodes.unreadable.values()
        return [item for cache in self._list_caches() for item in cache.unreadable.values()] + list(nodes)

    def classifier(self, key: ObjectKey) -> Classifier | None:
        """The Classifier with that key."""
        return next((found for cache in self._caches[CLASSIFIERS] if (found := cache.get(*key)) is not None), None)

    def classifiers(self) -> list[Classifier]:
        """Every Classifier."""
        return [classifier for cache in self._caches[CLASSIFIERS] for classifier in cache.values()]

    def classifiers_with_id(self, namespace: str, classifier_id: str) -> tuple[Classifier, ...]:
        """The Classifiers of a namespace that have a v3 id. Two have the same one only until the newer one gets another."""
        return self._find(CLASSIFIERS, (namespace, classifier_id))

    def jobs(self, classifier: ObjectKey) -> tuple[ObservedJob, ...]:
        return self._find(JOBS, classifier)

    def pods(self, classifier: ObjectKey) -> tuple[ObservedPod, ...]:
        return self._find(PODS, classifier)

    def deployments(self, classifier: ObjectKey) -> tuple[ObservedDeployment, ...]:
        return self._find(DEPLOYMENTS, classifier)

    def children(self, kind: ChildKind, classifier: ObjectKey) -> tuple[ObservedChild, ...]:
        """Children of a kind of which nothing but the manifest is observed."""
        return self._find(RESOURCE_OF_KIND[kind], classifier)

    def workloads(self, key: ObjectKey) -> Workloads:
        """The workloads of a Classifier, which show whether a training or rollout is starting."""
        classifier = self.classifier(key)
        uid = None if classifier is None else classifier.uid
        return Workloads(
            served_revision=None if classifier is None else classifier.status.served_revision,
            # By label alone, a user who can create Jobs could delay the trainings of all others.
            jobs=tuple(job for job in self.jobs(key) if job.identity.owner_uid == uid),
            pods=self.pods(key),
            deployments=tuple(item for item in self.deployments(key) if item.identity.owner_uid == uid),
        )

    def gpu_nodes(self) -> tuple[GpuNode, ...]:
        """Nodes with GPUs; empty if nodes are forbidden or not watched."""
        if self._nodes is None or self._nodes.forbidden:
            return ()
        return tuple(node for node in self._nodes.values() if node is not None)

    def take(self, resource: Resource, manifest: Manifest) -> None:
        """Store the answer to a write before the watch delivers it."""
        for cache in self._caches[resource]:
            if cache.namespace in (None, manifest["metadata"]["namespace"]):
                cache.take(manifest)

    def _find(self, resource: Resource, indexed: Hashable) -> tuple[Any, ...]:
        return tuple(item for cache in self._caches[resource] for item in cache.find(indexed))

    def _is_complete(self, namespace: str | None) -> bool:
        return all(cache.synced.is_set() and not cache.forbidden for cache in self._list_caches(namespace))

    def _find_forbidden_kind(self, namespace: str | None) -> str:
        """The plural of a kind that is forbidden in the namespace; empty if none is."""
        return next((cache.resource.plural for cache in self._list_caches(namespace) if cache.forbidden), "")

    def _list_caches(self, namespace: str | None = None) -> Iterable[ResourceCache[Any]]:
        """The caches of one namespace, or all."""
        for caches in self._caches.values():
            yield from (cache for cache in caches if namespace is None or cache.namespace == namespace)

    def _child_changed(self, change: Change[Any]) -> None:
        for owner in {_find_owner(child) for child in (change.before, change.after) if child is not None}:
            self._on_change(owner)

    def _classifier_changed(self, change: Change[Classifier]) -> None:
        gone = change.after is None or (change.before is not None and change.before.uid != change.after.uid)
        if change.before is not None and gone:
            self._on_deleted(change.before, change.deletion_seen)
        self._on_change(change.key)


def _find_id(classifier: Classifier) -> tuple[str, str] | None:
    """Namespace and v3 id."""
    return None if classifier.classifier_id is None else (classifier.namespace, classifier.classifier_id)


def _find_owner(child: ObservedJob | ObservedPod | ObservedDeployment | ObservedChild) -> ObjectKey:
    """The Classifier that the child's label names."""
    return ObjectKey(child.identity.namespace, child.identity.classifier)
