"""The watch caches of one namespace: its Classifiers and its inference servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import TypeGuard

from ocelli_api.names import build_object_name
from ocelli_api.pods import COMPONENT_LABEL, Component
from ocelli_cluster.client import ClusterClient
from ocelli_cluster.resource_cache import ResourceCache
from ocelli_cluster.resources import CLASSIFIERS, PODS
from ocelli_gateway.card_events import CardEvents
from ocelli_gateway.known_classifiers import InferenceServer, KnownClassifier, project_server, project_with_card

DELETED_SECONDS = 600.0
"""A deleted object is remembered for so long: longer than a cache may lag and still count as fresh."""


class NamespaceWatch:
    """Begins to watch at once; `close` ends it."""

    def __init__(self, client: ClusterClient, namespace: str) -> None:
        self._namespace = namespace
        self.events = CardEvents()
        self.classifiers: ResourceCache[KnownClassifier | None] = ResourceCache(
            client,
            CLASSIFIERS,
            project=project_with_card,
            namespace=namespace,
            index_by=_find_id,
            on_change=self.events.report,
        )
        self.servers: ResourceCache[InferenceServer | None] = ResourceCache(
            client,
            PODS,
            project=project_server,
            namespace=namespace,
            label_selector=f"{COMPONENT_LABEL}={Component.INFERENCE}",
            index_by=_find_revision,
        )
        self.started_at = time.monotonic()
        self.tasks = [asyncio.create_task(self.classifiers.run()), asyncio.create_task(self.servers.run())]
        self._deleted: dict[str, float] = {}
        """UIDs of objects that were deleted here, and when: the cache may still have them for a while."""

    def close(self) -> None:
        """Stop watching, and end the subscriptions."""
        for task in self.tasks:
            task.cancel()
        self.events.end()

    def is_synced(self) -> bool:
        """Whether a complete list of both was read."""
        return self.classifiers.synced.is_set() and self.servers.synced.is_set()

    def mark_deleted(self, uid: str) -> None:
        """Treat an object as deleted even while the cache still has it."""
        now = time.monotonic()
        self._deleted = {key: at for key, at in self._deleted.items() if now - at < DELETED_SECONDS}
        self._deleted[uid] = now

    def living(self) -> list[KnownClassifier]:
        """Every classifier in the cache that is not deleted."""
        return [item for item in self.classifiers.values() if self._lives(item)]

    def is_unchanged(self, name: str, resource_version: str) -> bool:
        """Whether the cache is fresh and has the classifier of that name in this version."""
        known = self.classifiers.get(self._namespace, name) if self.classifiers.is_fresh() else None
        return self._lives(known) and known.resource_version == resource_version

    def find(self, classifier_ids: Sequence[str]) -> dict[str, KnownClassifier]:
        """The classifiers of these ids in the cache."""
        found: dict[str, KnownClassifier] = {}
        for classifier_id in classifier_ids:
            for item in self.classifiers.find(classifier_id):
                # A classifier that was created from a manifest may have any name.
                if self._lives(item) and (classifier_id not in found or item.name == build_object_name(classifier_id)):
                    found[classifier_id] = item
        return found

    def _lives(self, item: KnownClassifier | None) -> TypeGuard[KnownClassifier]:
        return item is not None and not item.deleted and item.uid not in self._deleted


def select_servers(servers: Iterable[InferenceServer | None]) -> list[InferenceServer]:
    """Those of the servers that take requests."""
    return [server for server in servers if server is not None and server.takes_requests]


def _find_id(classifier: KnownClassifier | None) -> str | None:
    return None if classifier is None else classifier.classifier_id


def _find_revision(server: InferenceServer | None) -> tuple[str, str] | None:
    return None if server is None else (server.classifier_id, server.revision)
