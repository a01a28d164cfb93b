"""The list-and-watch cache of operator and gateway: the objects of one kind, reduced to the fields that the reader uses.

It lists, then watches with timeouts and bookmarks. It lists again when its resourceVersion has expired, and backs off after
errors. It reports every change, also of objects that vanished between two lists, and only after the cache holds the change: a
reader that a report wakes never reads an older state. It must not know what the objects mean.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ocelli_api.classifier import Manifest
from ocelli_api.documents import DocumentError
from ocelli_cluster.client import ClusterClient, ClusterError, ForbiddenError, NotFoundError, UnreachableError
from ocelli_cluster.resources import ObjectKey, ObjectReference, Resource

logger = logging.getLogger(__name__)

T = TypeVar("T")

BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_LIMIT_SECONDS = 5.0
RECONNECT_GRACE_SECONDS = 2.0
"""For this long after the planned end of a watch, and before the next one starts, a cache still counts as fresh."""


@dataclass(frozen=True, kw_only=True)
class WatchTimeouts:
    """How long one watch lasts: a random time between the two, so that watches do not all end together."""

    least_seconds: int = 30
    most_seconds: int = 60


@dataclass(frozen=True, kw_only=True)
class Change(Generic[T]):
    """One object before and after; None if it did not exist."""

    key: ObjectKey
    before: T | None
    after: T | None
    deletion_seen: bool = False
    """The watch delivered a DELETED event. An object that is merely missing from a later list may also be missing because an
    earlier backup of the cluster was restored."""


@dataclass(frozen=True, kw_only=True)
class UnreadableObject:
    """An object that cannot be parsed, for instance because a later release wrote it."""

    reference: ObjectReference
    problem: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry(Generic[T]):
    value: T
    resource_version: int


class ResourceCache(Generic[T]):
    """The objects of one kind that match a label selector, in one namespace or in all (`namespace=None`).

    `project` turns a manifest into the value to keep. If it raises, the object is `unreadable`: the cache keeps the last value
    and does not treat the object as deleted. `index_by` returns what `find` finds a value by; None: the value is not indexed.
    `on_change` is called in the event loop for each change and must not block. Run `run()` as a task. If listing is forbidden,
    the cache tries again, at most `forbidden_limit_seconds` apart, because the right may be granted later.
    """

    def __init__(
        self,
        client: ClusterClient,
        resource: Resource,
        *,
        project: Callable[[Manifest], T],
        namespace: str | None = None,
        label_selector: str | None = None,
        index_by: Callable[[T], Hashable] | None = None,
        on_change: Callable[[Change[T]], None] | None = None,
        timeouts: WatchTimeouts = WatchTimeouts(),
        forbidden_limit_seconds: float = BACKOFF_LIMIT_SECONDS,
    ) -> None:
        self.resource = resource
        self.namespace = namespace
        self.synced = asyncio.Event()
        """Set after the first complete list."""
        self.answered = asyncio.Event()
        """Set after the first answer to a list, even if the answer is that listing is forbidden."""
        self.forbidden = False
        """The last list was forbidden: the cache holds an earlier state, or nothing."""
        self.missing = False
        """The API server does not know the kind: its definition was deleted, or does not exist yet."""
        self.unreadable: dict[ObjectKey, UnreadableObject] = {}
        """Objects that exist and whose current content cannot be parsed."""
        self._client = client
        self._project = project
        self._label_selector = label_selector
        self._index_by = index_by
        self._on_change = on_change
        self._timeouts = timeouts
        self._forbidden_limit_seconds = forbidden_limit_seconds
        self._entries: dict[ObjectKey, _Entry[T]] = {}
        self._index: dict[Hashable, tuple[ObjectKey, ...]] = {}
        """Sorted. Tuples, because most have one or two keys, and a set takes four times as much memory."""
        self._resource_version = ""
        self._connected = False
        self._contact_at = time.monotonic()

    def get(self, namespace: str, name: str) -> T | None:
        """The object; None if it does not exist."""
        entry = self._entries.get(ObjectKey(namespace, name))
        return None if entry is None else entry.value

    def find(self, indexed: Hashable) -> list[T]:
        """The objects for which `index_by` returns this value, sorted by key."""
        return [self._entries[key].value for key in self._index.get(indexed, ())]

    def values(self) -> list[T]:
        """Every object; may be called from another thread."""
        return [entry.value for entry in list(self._entries.values())]

    @property
    def watch_age_seconds(self) -> float:
        """Seconds since the API server last sent a list, an event or a bookmark, or started or ended a watch as planned."""
        return time.monotonic() - self._contact_at

    def is_fresh(self) -> bool:
        """Whether the cache lags at most by the delay of a watch.

        False before the first list, while the watch is broken, and after silence for longer than a watch may last.
        """
        if not self.synced.is_set():
            return False
        limit_seconds = self._timeouts.most_seconds + 10 if self._connected else RECONNECT_GRACE_SECONDS
        return self.watch_age_seconds < limit_seconds

    def take(self, manifest: Manifest) -> None:
        """Store the answer to a write of this process before the watch delivers it. Reports no change."""
        key, version = _key(manifest), _version(manifest)
        entry = self._entries.get(key)
        # If the watch is past the write and the cache has no such object, it has been deleted since.
        seen = entry.resource_version if entry is not None else int(self._resource_version or 0)
        if version > seen:
            self._store(key, version, manifest)

    async def run(self) -> None:
        """List and watch until cancelled."""
        backoff_seconds = BACKOFF_FIRST_SECONDS
        while True:
            started_at = time.monotonic()
            try:
                if not self._resource_version:
                    await self._list()
                await self._watch()
                continue
            except UnreachableError as error:
                logger.warning(
                    "watch is broken: %s", error, extra={"resource": self.resource.plural, "namespace": self.namespace}
                )
            except ForbiddenError as error:
                if not self.forbidden:
                    logger.warning(
                        "watch is forbidden: %s", error, extra={"resource": self.resource.plural, "namespace": self.namespace}
                    )
                self.forbidden = True
                self.answered.set()
                self._resource_version = ""
            except ClusterError as error:
                # The resourceVersion has expired, or is from before a backup was restored: start again with a list.
                self.missing = isinstance(error, NotFoundError)
                logger.info(
                    "listing again",
                    extra={"resource": self.resource.plural, "namespace": self.namespace, "error": str(error)},
                )
                self._resource_version = ""
            except Exception:
                # If the task ended here, the cache would stay out of date unnoticed.
                logger.exception("watch failed; listing again", extra={"resource": self.resource.plural})
                self._resource_version = ""
            finally:
                self._connected = False
            if time.monotonic() - started_at > BACKOFF_LIMIT_SECONDS:
                backoff_seconds = BACKOFF_FIRST_SECONDS
            await asyncio.sleep(backoff_seconds * random.uniform(0.5, 1.0))
            limit_seconds = self._forbidden_limit_seconds if self.forbidden else BACKOFF_LIMIT_SECONDS
            backoff_seconds = min(backoff_seconds * 2, limit_seconds)

    async def _list(self) -> None:
        """Store the list page by page: a whole parsed list may need many times the memory of the values."""
        found: set[ObjectKey] = set()
        resource_version = ""
        async for page in self._client.list_pages(self.resource, self.namespace, self._label_selector):
            if page.first:
                found.clear()
            found.update(self._store_page(page.items))
            resource_version = page.resource_version
            self._contact_at = time.monotonic()
            # At startup all caches list at once: none of them may hold a page while it waits for the next one.
            del page
        changes: list[Change[T]] = []
        for key in [key for key in self._entries if key not in found]:
            before = self._entries[key]
            self._set(key, None)
            changes.append(self._change(key, before))
        for key in self.unreadable.keys() - found:
            del self.unreadable[key]
        self._resource_version = resource_version
        self.forbidden = False
        self.missing = False
        self.synced.set()
        self.answered.set()
        self._report(changes)

    def _store_page(self, manifests: Iterable[Manifest]) -> set[ObjectKey]:
        """Store the objects of one page, report those that are new or changed, and return the keys of all."""
        found: set[ObjectKey] = set()
        changes: list[Change[T]] = []
        for manifest in manifests:
            key, version = _key(manifest), _version(manifest)
            found.add(key)
            before = self._entries.get(key)
            if before is not None and before.resource_version == version:
                continue
            self._store(key, version, manifest)
            changes.append(self._change(key, before))
        self._report(changes)
        return found

    async def _watch(self) -> None:
        timeout_seconds = random.randint(self._timeouts.least_seconds, self._timeouts.most_seconds)
        async with self._client.watch(
            self.resource,
            namespace=self.namespace,
            label_selector=self._label_selector,
            resource_version=self._resource_version,
            timeout_seconds=timeout_seconds,
        ) as events:
            self._connected = True
            self._contact_at = time.monotonic()
            async for event in events:
                self._contact_at = time.monotonic()
                metadata = event.object.get("metadata") or {}
                self._resource_version = metadata.get("resourceVersion", self._resource_version)
                if event.type == "BOOKMARK":
                    continue
                key, version = _key(event.object), _version(event.object)
                before = self._entries.get(key)
                if before is not None and before.resource_version > version:
                    continue
                deleted = event.type == "DELETED"
                if deleted:
                    self._set(key, None)
                    self.unreadable.pop(key, None)
                else:
                    self._store(key, version, event.object)
                self._report([self._change(key, before, deletion_seen=deleted)])
            self._contact_at = time.monotonic()

    def _store(self, key: ObjectKey, version: int, manifest: Manifest) -> None:
        try:
            value = self._project(manifest)
        except Exception as error:
            self._keep(key, version, manifest, error)
            return
        self._set(key, _Entry(value=value, resource_version=version))
        self.unreadable.pop(key, None)

    def _set(self, key: ObjectKey, entry: _Entry[T] | None) -> None:
        """Store or remove one entry, and bring the index up to date."""
        before = self._entries.get(key)
        if entry is None:
            self._entries.pop(key, None)
        else:
            self._entries[key] = entry
        if self._index_by is None:
            return
        for changed, is_added in ((before, False), (entry, True)):
            indexed = None if changed is None else self._index_by(changed.value)
            if indexed is None:
                continue
            keys = tuple(other for other in self._index.get(indexed, ()) if other != key)
            self._index[indexed] = tuple(sorted((*keys, key))) if is_added else keys
            if not self._index[indexed]:
                del self._index[indexed]

    def _keep(self, key: ObjectKey, version: int, manifest: Manifest, error: Exception) -> None:
        """Record an object that cannot be parsed, and keep its last value."""
        before = self._entries.get(key)
        if before is not None:
            self._set(key, _Entry(value=before.value, resource_version=version))
        problem = _describe_problem(error)
        known = self.unreadable.get(key)
        if known is None or known.problem != problem:
            logger.error(
                "object cannot be parsed; the last known state is kept",
                exc_info=error,
                extra={"resource": self.resource.plural, "object": str(key)},
            )
        self.unreadable[key] = UnreadableObject(reference=ObjectReference.of(self.resource, manifest), problem=problem)

    def _change(self, key: ObjectKey, before: _Entry[T] | None, *, deletion_seen: bool = False) -> Change[T]:
        after = self._entries.get(key)
        return Change(
            key=key,
            before=None if before is None else before.value,
            after=None if after is None else after.value,
            deletion_seen=deletion_seen,
        )

    def _report(self, changes: Iterable[Change[T]]) -> None:
        if self._on_change is None:
            return
        for change in changes:
            try:
                self._on_change(change)
            except Exception:
                logger.exception("change could not be reported", extra={"object": str(change.key)})


def _describe_problem(error: Exception) -> str:
    """What is wrong with an object, without the words of a programming language; the log has the traceback."""
    if isinstance(error, DocumentError):
        return str(error)
    if isinstance(error, KeyError):
        return f'field "{error.args[0]}" is missing'
    return "a field has an unexpected type"


def _key(manifest: Manifest) -> ObjectKey:
    metadata = manifest["metadata"]
    return ObjectKey(metadata.get("namespace", ""), metadata["name"])


def _version(manifest: Manifest) -> int:
    """resourceVersions of one kind are increasing decimal numbers (guaranteed since Kubernetes 1.35, true before)."""
    return int(manifest["metadata"]["resourceVersion"])
