"""Deletions of stored bytes: what was stored for Classifiers that were seen to be deleted.

What is still to be deleted is noted in the store, at most a second late, so that a successor goes on with it. The sweep could
not take its place: it spares the bytes of a Classifier that is not there where that may be one that was not restored yet.

Only what went while the resource was there is noted: nobody asked for the deletion of what went with the resource, and it comes
back from a backup when the resource does.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace

from ocelli_cluster.client import ClusterError

from ocelli_operator.store_owner import Ownership
from ocelli_operator.sweep import OtherInstallationError, ResourceGoneError, StoredClassifier, StoreSweep
from ocelli_operator.work_queue import WorkQueue, spread
from ocelli_storage.documents import parse_document
from ocelli_storage.layout import deletions_key
from ocelli_storage.object_store import ObjectNotFoundError, ObjectStore, ObjectStoreError, ObjectTooLargeError

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 45.0
"""A trainer may outlive its Classifier by its grace period of 30 seconds, and write until then."""
RETRY_SECONDS = 60.0
OTHER_STORE_RETRY_SECONDS = 600.0
"""Somebody has to make the store this installation's."""
NOTE_SECONDS = 1.0
"""Between two writes of the note, however many Classifiers are deleted."""
NOTE_RETRY_SECONDS = 10.0
NOTE_LIMIT_BYTES = 32 * 1024 * 1024

TellKept = Callable[[StoredClassifier, Ownership], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class _Deletion:
    gone: StoredClassifier
    again: bool = False
    """The bytes were deleted once."""
    told: bool = False
    """It was told that the bytes are kept."""


class Deletions:
    """Those of the operator that leads. `identify` says which installation this is."""

    def __init__(self, store: ObjectStore, identify: Callable[[], Awaitable[str]]) -> None:
        self._store = store
        self._identify = identify
        self._queue: WorkQueue[_Deletion] = WorkQueue()
        self._pending: set[StoredClassifier] = set()
        """What the note is to have."""
        self._changed = asyncio.Event()

    def add(self, gone: StoredClassifier) -> None:
        """Delete what is stored for this Classifier, soon."""
        self._queue.add(_Deletion(gone=gone))

    def clear(self) -> None:
        """Somebody else leads."""
        self._queue.clear()
        self._pending.clear()

    def give_up(self) -> None:
        """The resource is gone, and what waits went with it. The sweep takes what is waste of it, when there are Classifiers
        again."""
        self.clear()
        self._changed.set()

    async def run(self, sweep: StoreSweep, note_deleted: Callable[[int], None], tell_kept: TellKept) -> None:
        """Work until cancelled. `note_deleted` gets the number of objects that went; `tell_kept` is called once for each
        Classifier whose bytes have to be kept, because the store belongs to another installation."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_note())
            tasks.create_task(self._delete(sweep, note_deleted, tell_kept))

    async def _delete(self, sweep: StoreSweep, note_deleted: Callable[[int], None], tell_kept: TellKept) -> None:
        while True:
            deletion = await self._queue.take()
            try:
                await sweep.check_resource()
                self._pending.add(deletion.gone)
                self._changed.set()
                await self._delete_bytes(deletion, sweep, note_deleted, tell_kept)
            except ResourceGoneError as error:
                logger.warning("stored bytes are kept: %s", error)
                self.give_up()
            except (ClusterError, ObjectStoreError) as error:
                logger.warning("stored bytes could not be deleted", extra={"id": deletion.gone[1], "error": str(error)})
                self._queue.add_after(deletion, spread(RETRY_SECONDS))
            except Exception:
                logger.exception("stored bytes could not be deleted", extra={"id": deletion.gone[1]})
                self._queue.add_after(deletion, spread(RETRY_SECONDS))
            finally:
                self._queue.done(deletion)

    async def _delete_bytes(
        self, deletion: _Deletion, sweep: StoreSweep, note_deleted: Callable[[int], None], tell_kept: TellKept
    ) -> None:
        try:
            note_deleted(await sweep.delete_classifier(deletion.gone))
        except OtherInstallationError as error:
            if not deletion.told:
                await tell_kept(deletion.gone, error.ownership)
            self._queue.add_after(replace(deletion, told=True), spread(OTHER_STORE_RETRY_SECONDS))
            return
        if not deletion.again:
            self._queue.add_after(replace(deletion, again=True), AGAIN_SECONDS)
            return
        self._pending.discard(deletion.gone)
        self._changed.set()

    async def _keep_note(self) -> None:
        noted: Collection[StoredClassifier] | None = None
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                key = deletions_key(await self._identify())
                if noted is None:
                    noted = await self._read_note(key)
                    self._pending |= noted
                    for gone in noted:
                        # A predecessor has told what there was to tell.
                        self._queue.add(_Deletion(gone=gone, told=True))
                pending = frozenset(self._pending)
                if pending != noted:
                    await self._store.put(key, json.dumps({"pending": sorted(pending)}).encode())
                    noted = pending
            except (ClusterError, ObjectStoreError) as error:
                logger.warning("pending deletions could not be noted", extra={"problem": str(error)})
                self._changed.set()
                await asyncio.sleep(spread(NOTE_RETRY_SECONDS))
            await asyncio.sleep(NOTE_SECONDS)

    async def _read_note(self, key: str) -> frozenset[StoredClassifier]:
        try:
            document = parse_document(await self._store.get(key, limit_bytes=NOTE_LIMIT_BYTES))
            return frozenset((str(namespace), str(classifier_id)) for namespace, classifier_id in document["pending"])
        except ObjectNotFoundError:
            return frozenset()
        except (ObjectTooLargeError, KeyError, ValueError, TypeError) as error:
            logger.warning("the note of pending deletions cannot be read", extra={"key": key, "problem": str(error)})
            return frozenset()
