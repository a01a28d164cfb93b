"""The one list-and-watch cache: what the API server holds of one kind, projected to what its reader uses.

It lists, then watches with set timeouts and bookmarks, lists again when its place in history is gone, and backs off on errors.
Every change that it takes in is reported, vanished objects too, after it can be read here: whoever acts on a report never reads
something older than what woke them. It must not know what the objects mean.
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ocelli_api.classifier import Manifest
from ocelli_cluster.client import ClusterClient, ClusterError, ForbiddenError, NotFoundError, UnreachableError
from ocelli_cluster.resources import ObjectKey, Resource

logger = logging.getLogger(__name__)

T = TypeVar("T")

BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_LIMIT_SECONDS = 5.0
RECONNECT_GRACE_SECONDS = 2.0
"""Between the planned end of one watch and the start of the next one a cache still counts as fresh for this long."""


@dataclass(frozen=True, kw_only=True)
class WatchTimeouts:
    """How long one watch lasts: between the two, drawn anew each time so that watches don't end together."""

    least_seconds: int = 30
    most_seconds: int = 60


@dataclass(frozen=True, kw_only=True)
class Change(Generic[T]):
    """One object before and after: None where it was not there."""

    key: ObjectKey
    before: T | None
    after: T | None
    deletion_seen: bool = False
    """The API server said that the object was deleted. What a later list lacks may also be missing because the list is of an
    earlier history, as after a restored backup."""


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """An object that cannot be read, for instance because a later release wrote it."""

    resource: Resource
    key: ObjectKey
    uid: str
    resource_version: str
    problem: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry(Generic[T]):
    value: T
    resource_version: int


class ResourceCache(Generic[T]):
    """The objects of one kind, in one namespace or in all (`namespace=None`), that a label selector matches.

    `project` turns a manifest into what is kept. Where it raises, the object is `unreadable`: what was known of it is kept, and
    it never counts as deleted. `on_change` is called within the event loop for each change; it must not block. Run `run()`
    as a task of its own. Where listing is forbidden it is tried again and again, because rights may come later, at most
    `forbidden_limit_seconds` apart.
    """

    def __init__(
        self,
        client: ClusterClient,
        resource: Resource,
        *,
        project: Callable[[Manifest], T],
        namespace: str | None = None,
        label_selector: str | None = None,
        on_change: Callable[[Change[T]], None] | None = None,
        timeouts: WatchTimeouts = WatchTimeouts(),
        forbidden_limit_seconds: float = BACKOFF_LIMIT_SECONDS,
    ) -> None:
        self.resource = resource
        self.namespace = namespace
        self.synced = asyncio.Event()
        """Set once the first complete list was taken in."""
        self.answered = asyncio.Event()
        """Set once the API server has answered a list, be it that it forbids it."""
        self.forbidden = False
        """The last list was refused for want of rights: what is held here is of before, if there is anything."""
        self.missing = False
        """The API server does not know the kind: its definition was deleted, or is not there yet."""
        self.lists = 0
        """How many complete lists were taken in."""
        self.unreadable: dict[ObjectKey, Unreadable] = {}
        """Objects that are there and cannot be read as they are now."""
        self._client = client
        self._project = project
        self._label_selector = label_selector
        self._on_change = on_change
        self._timeouts = timeouts
        self._forbidden_limit_seconds = forbidden_limit_seconds
        self._entries: dict[ObjectKey, _Entry[T]] = {}
        self._resource_version = ""
        self._connected = False
        self._contact_at = time.monotonic()

    @property
    def resource_version(self) -> str:
        """The latest resourceVersion seen; empty before the first list."""
        return self._resource_version

    def get(self, namespace: str, name: str) -> T | None:
        """The object, or None where there is none."""
        entry = self._entries.get(ObjectKey(namespace, name))
        return None if entry is None else entry.value

    def items(self) -> list[tuple[ObjectKey, T]]:
        """Every object with its key."""
        return [(key, entry.value) for key, entry in list(self._entries.items())]

    def values(self) -> list[T]:
        """Every object; may be called from another thread."""
        return [entry.value for entry in list(self._entries.values())]

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def contact_age_seconds(self) -> float:
        """Seconds since the API server was heard of: a list, an event, a bookmark, or the start or planned end of a watch."""
        return time.monotonic() - self._contact_at

    def is_fresh(self) -> bool:
        """Whether what is read here is at most as old as the delay of a watch.

        False before the first list, while the watch is broken, and when nothing was heard for longer than a watch may last.
        """
        if not self.synced.is_set():
            return False
        limit_seconds = self._timeouts.most_seconds + 10 if self._connected else RECONNECT_GRACE_SECONDS
        return self.contact_age_seconds < limit_seconds

    def take(self, manifest: Manifest) -> None:
        """Take in the answer to a write of one's own, so that it is read here before the watch brings it. Reports no change."""
        key, version = _key(manifest), _version(manifest)
        entry = self._entries.get(key)
        # An object that is not here although the watch is past the write was deleted since.
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
                # The place in history is gone, or of another history (a restored backup): start over from a list.
                self.missing = isinstance(error, NotFoundError)
                logger.info(
                    "listing again",
                    extra={"resource": self.resource.plural, "namespace": self.namespace, "error": str(error)},
                )
                self._resource_version = ""
            except Exception:
                # A cache that ended silently would leave its reader blind.
                logger.exception("watch failed, listing again", extra={"resource": self.resource.plural})
                self._resource_version = ""
            finally:
                self._connected = False
            if time.monotonic() - started_at > BACKOFF_LIMIT_SECONDS:
                backoff_seconds = BACKOFF_FIRST_SECONDS
            await asyncio.sleep(backoff_seconds * random.uniform(0.5, 1.0))
            limit_seconds = self._forbidden_limit_seconds if self.forbidden else BACKOFF_LIMIT_SECONDS
            backoff_seconds = min(backoff_seconds * 2, limit_seconds)

    async def _list(self) -> None:
        """Take in page by page: the whole list, parsed, may be many times what is kept of it."""
        found: set[ObjectKey] = set()
        resource_version = ""
        async for page in self._client.list_pages(self.resource, self.namespace, self._label_selector):
            if page.first:
                found.clear()
            found.update(self._take_in(page.items))
            resource_version = page.resource_version
            self._contact_at = time.monotonic()
            # Every cache lists at a start: none may hold its page while it waits for the next one.
            del page
        changes: list[Change[T]] = []
        for key in [key for key in self._entries if key not in found]:
            before = self._entries.pop(key)
            changes.append(self._change(key, before))
        for key in self.unreadable.keys() - found:
            del self.unreadable[key]
        self._resource_version = resource_version
        self.lists += 1
        self.forbidden = False
        self.missing = False
        self.synced.set()
        self.answered.set()
        self._report(changes)

    def _take_in(self, manifests: Iterable[Manifest]) -> set[ObjectKey]:
        """Note objects of a list, and report those that are new or changed; their keys."""
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
                    self._entries.pop(key, None)
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
        self._entries[key] = _Entry(value=value, resource_version=version)
        self.unreadable.pop(key, None)

    def _keep(self, key: ObjectKey, version: int, manifest: Manifest, error: Exception) -> None:
        """Note an object that cannot be read, and keep what was known of it."""
        before = self._entries.get(key)
        if before is not None:
            self._entries[key] = _Entry(value=before.value, resource_version=version)
        problem = _tell_problem(error)
        known = self.unreadable.get(key)
        if known is None or known.problem != problem:
            logger.error(
                "object cannot be read, what was known of it is kept",
                exc_info=error,
                extra={"resource": self.resource.plural, "object": str(key)},
            )
        metadata = manifest["metadata"]
        self.unreadable[key] = Unreadable(
            resource=self.resource,
            key=key,
            uid=metadata.get("uid", ""),
            resource_version=metadata["resourceVersion"],
            problem=problem,
        )

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
                logger.exception("a change could not be reported", extra={"object": str(change.key)})


def _tell_problem(error: Exception) -> str:
    """What is wrong with an object, without the words of a programming language; the log has them."""
    unknown = re.fullmatch(r"'(.*)' is not a valid \w+", str(error), re.DOTALL) if isinstance(error, ValueError) else None
    if unknown is not None:
        return f'it does not know the value "{unknown[1]}"'
    if isinstance(error, KeyError):
        return f'the field "{error.args[0]}" is missing'
    return "a field has another form than it knows"


def _key(manifest: Manifest) -> ObjectKey:
    metadata = manifest["metadata"]
    return ObjectKey(metadata.get("namespace", ""), metadata["name"])


def _version(manifest: Manifest) -> int:
    """Versions of one kind are decimal numbers that grow (promised by the API since Kubernetes 1.35, true before)."""
    return int(manifest["metadata"]["resourceVersion"])
