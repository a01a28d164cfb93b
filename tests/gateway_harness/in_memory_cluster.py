"""A fake of the Kubernetes API in place of `ocelli_cluster.client`: objects in memory, versions, watches, preconditions.

Only what the gateway calls. Validation by the CRD is not part of it: that is tested against a real API server.
"""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from ocelli_api.classifier import Manifest
from ocelli_cluster.client import ApiError, ConflictError, Listing, NotFoundError, Page, UnreachableError, WatchEvent
from ocelli_cluster.resources import CLASSIFIERS, Resource

Key = tuple[str, str, str]


class InMemoryCluster:
    """Use it within one event loop."""

    def __init__(self) -> None:
        self.reachable = True
        self.forbidden_namespace: str | None = None
        """The gateway has no rights in this namespace."""
        self.reads_by_id = 0
        """Reads of one Classifier or of those with a label, except by health probes. Watches list whole namespaces."""
        self.watching = True
        """While False, no watch delivers anything, as in a replica that lags behind."""
        self.before_patch: Callable[[], None] | None = None
        """Called once before the next patch is applied, for a write in between."""
        self.before_create: Callable[[], None] | None = None
        """The same for the next create."""
        self.create_error: Exception | None = None
        """Raised by the next create."""
        self.create_errors: dict[str, Exception] = {}
        """By namespace: raised by every create in it."""
        self._objects: dict[Key, Manifest] = {}
        self._version = 100
        self._watchers: list[tuple[Resource, str | None, str | None, asyncio.Queue[WatchEvent | None]]] = []
        self._watches_broken = False
        self._held: list[tuple[str, str, Manifest]] = []

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        self._check_reachable()
        self.reads_by_id += resource == CLASSIFIERS and not name.startswith("probe")
        return copy.deepcopy(self._find(resource, namespace, name))

    async def list_objects(
        self,
        resource: Resource,
        namespace: str | None = None,
        label_selector: str | None = None,
        *,
        field_selector: str | None = None,
    ) -> Listing:
        self._check_reachable()
        self.reads_by_id += resource == CLASSIFIERS and label_selector is not None and "=probe" not in label_selector
        if namespace is not None and namespace == self.forbidden_namespace:
            raise ApiError(403, f"{resource.plural} is forbidden in the namespace {namespace}", "Forbidden")
        items = tuple(
            copy.deepcopy(item)
            for (plural, place, _), item in self._objects.items()
            if plural == resource.plural
            and namespace in (None, place)
            and _matches(item, label_selector)
            and field_selector in (None, f"metadata.name={item['metadata']['name']}")
        )
        return Listing(items=items, resource_version=str(self._version))

    async def list_pages(
        self, resource: Resource, namespace: str | None = None, label_selector: str | None = None
    ) -> AsyncIterator[Page]:
        listing = await self.list_objects(resource, namespace, label_selector)
        yield Page(items=listing.items, resource_version=listing.resource_version, first=True)

    async def create(
        self, resource: Resource, namespace: str, body: Manifest, *, field_manager: str | None = None, dry_run: bool = False
    ) -> Manifest:
        self._check_reachable()
        if self.before_create is not None:
            hook, self.before_create = self.before_create, None
            hook()
        if self.create_error is not None:
            error, self.create_error = self.create_error, None
            raise error
        if namespace in self.create_errors:
            raise self.create_errors[namespace]
        key = (resource.plural, namespace, body["metadata"]["name"])
        if key in self._objects:
            raise ConflictError(409, f"{key[2]} already exists", "AlreadyExists")
        if dry_run:
            return body
        return self.put(resource, namespace, body)

    async def replace(self, resource: Resource, namespace: str, name: str, body: Manifest) -> Manifest:
        self._check_reachable()
        current = self._find(resource, namespace, name)
        if body["metadata"].get("resourceVersion") not in (None, current["metadata"]["resourceVersion"]):
            raise ConflictError(409, f"{name} has been modified", "Conflict")
        return self.put(resource, namespace, body)

    async def patch(
        self, resource: Resource, namespace: str, name: str, patch: Manifest, *, field_manager: str | None = None
    ) -> Manifest:
        self._check_reachable()
        if self.before_patch is not None:
            hook, self.before_patch = self.before_patch, None
            hook()
        current = self._find(resource, namespace, name)
        wanted = patch.get("metadata", {}).get("resourceVersion")
        if wanted is not None and wanted != current["metadata"]["resourceVersion"]:
            raise ConflictError(409, f"{name} has been modified", "Conflict")
        return self.put(resource, namespace, _merge(copy.deepcopy(current), patch))

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str | None = None) -> None:
        self._check_reachable()
        current = self._find(resource, namespace, name)
        if uid is not None and uid != current["metadata"]["uid"]:
            raise ConflictError(409, "the uid in the precondition differs", "Conflict")
        self.remove(resource, namespace, name)

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None,
        label_selector: str | None,
        resource_version: str,
        timeout_seconds: int,
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        self._check_reachable()
        if self._watches_broken:
            raise UnreachableError("the watch could not be opened")
        queue: asyncio.Queue[WatchEvent | None] = asyncio.Queue()
        watcher = (resource, namespace, label_selector, queue)
        self._watchers.append(watcher)

        async def events() -> AsyncIterator[WatchEvent]:
            while True:
                event = await queue.get()
                if event is None:
                    raise UnreachableError("the watch broke off")
                yield event

        try:
            yield events()
        finally:
            self._watchers.remove(watcher)

    def put(self, resource: Resource, namespace: str, body: Manifest) -> Manifest:
        """Store an object as the API server would, and notify the watches."""
        stored = copy.deepcopy(body)
        key = (resource.plural, namespace, stored["metadata"]["name"])
        before = self._objects.get(key)
        self._version += 1
        metadata = stored["metadata"]
        metadata["namespace"] = namespace
        metadata["resourceVersion"] = str(self._version)
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata.setdefault("creationTimestamp", datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        self._objects[key] = stored
        self._notify(resource, "ADDED" if before is None else "MODIFIED", stored)
        return copy.deepcopy(stored)

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        stored = self._objects.pop((resource.plural, namespace, name))
        self._version += 1
        gone = copy.deepcopy(stored)
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._notify(resource, "DELETED", gone)

    def find(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        return copy.deepcopy(self._objects.get((resource.plural, namespace, name)))

    def all(self, resource: Resource, namespace: str) -> list[Manifest]:
        return [
            copy.deepcopy(item)
            for (plural, place, _), item in self._objects.items()
            if (plural, place) == (resource.plural, namespace)
        ]

    def break_watches(self) -> None:
        """End every watch, and open no new one; everything else still answers."""
        self._watches_broken = True
        for *_, queue in self._watchers:
            queue.put_nowait(None)

    def deliver(self) -> None:
        """Let the watches deliver again, including all held events."""
        self.watching = True
        held, self._held = self._held, []
        for plural, kind, stored in held:
            self._send(plural, kind, stored)

    def _notify(self, resource: Resource, kind: str, stored: Manifest) -> None:
        if self.watching:
            self._send(resource.plural, kind, stored)
        else:
            self._held.append((resource.plural, kind, copy.deepcopy(stored)))

    def _send(self, plural: str, kind: str, stored: Manifest) -> None:
        for resource, namespace, selector, queue in self._watchers:
            if (
                resource.plural == plural
                and namespace in (None, stored["metadata"]["namespace"])
                and _matches(stored, selector)
            ):
                queue.put_nowait(WatchEvent(type=kind, object=copy.deepcopy(stored)))

    def _find(self, resource: Resource, namespace: str, name: str) -> Manifest:
        try:
            return self._objects[(resource.plural, namespace, name)]
        except KeyError:
            raise NotFoundError(404, f"{resource.plural} {name} not found", "NotFound") from None

    def _check_reachable(self) -> None:
        if not self.reachable:
            raise UnreachableError("the Kubernetes API did not answer")


def _matches(item: Manifest, selector: str | None) -> bool:
    labels = item["metadata"].get("labels") or {}
    pairs = (pair.partition("=") for pair in (selector or "").split(",") if pair)
    return all(labels.get(key) == value if equals else key in labels for key, equals, value in pairs)


def _merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value)
    return merged
