"""Deletion of the stored data of Classifiers whose deletion was seen.

Pending deletions are recorded in the store within a second, so that a new leader continues with them. The sweep cannot replace
this: it spares the data of an absent Classifier if a backup that contains it may not be restored yet.

Only deletions that were seen while the CRD existed are recorded. Classifiers that disappear together with the CRD were not
deleted on purpose, and return from a backup together with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from ocelli_cluster.client import ClusterError
from ocelli_operator.installation import Installation
from ocelli_operator.installation_documents import load_document
from ocelli_operator.metrics import OperatorMetrics
from ocelli_operator.references import StoredClassifier
from ocelli_operator.status import Occurrence
from ocelli_operator.store_owner import Ownership
from ocelli_operator.sweep import OtherInstallationError, ResourceGoneError, StoreSweep
from ocelli_operator.work_queue import WorkQueue, spread
from ocelli_storage.layout import deletions_key
from ocelli_storage.object_store import ObjectStore, ObjectStoreError

logger = logging.getLogger(__name__)

AGAIN_SECONDS = 45.0
"""A trainer may write for as long as its grace period of 30 seconds after its Classifier was deleted."""
RETRY_SECONDS = 60.0
OTHER_STORE_RETRY_SECONDS = 600.0
"""An administrator has to adopt the store first."""
SAVE_SECONDS = 1.0
"""Between two writes of the document, however many Classifiers are deleted."""
SAVE_RETRY_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class _Deletion:
    target: StoredClassifier
    deleted_once: bool = False
    reported: bool = False
    """An Event has reported that the data is kept."""


class Deletions:
    """Pending deletions of the operator that leads."""

    def __init__(self, store: ObjectStore, installation: Installation, metrics: OperatorMetrics) -> None:
        self._store = store
        self._installation = installation
        self._metrics = metrics
        self._queue: WorkQueue[_Deletion] = WorkQueue()
        self._pending: set[StoredClassifier] = set()
        """What the document should contain."""
        self._changed = asyncio.Event()

    def add(self, target: StoredClassifier) -> None:
        """Delete the stored data of this Classifier soon."""
        self._queue.add(_Deletion(target=target))

    def clear(self) -> None:
        """Another operator leads."""
        self._queue.clear()
        self._pending.clear()

    def give_up(self) -> None:
        """The CRD was deleted, and pending Classifiers may have disappeared with it. The sweep deletes orphans later."""
        self.clear()
        self._changed.set()

    async def run(self, sweep: StoreSweep) -> None:
        """Delete until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._save_pending())
            tasks.create_task(self._delete(sweep))

    async def _delete(self, sweep: StoreSweep) -> None:
        while True:
            deletion = await self._queue.take()
            try:
                await sweep.check_resource()
                self._pending.add(deletion.target)
                self._changed.set()
                await self._delete_data(deletion, sweep)
            except ResourceGoneError as error:
                logger.warning("stored data is kept: %s", error)
                self.give_up()
            except Exception as error:
                expected = isinstance(error, ClusterError | ObjectStoreError)
                logger.warning(
                    "stored data could not be deleted; retrying",
                    exc_info=None if expected else error,
                    extra={"id": deletion.target[1], "error": str(error)},
                )
                self._queue.add_after(deletion, spread(RETRY_SECONDS))
            finally:
                self._queue.done(deletion)

    async def _delete_data(self, deletion: _Deletion, sweep: StoreSweep) -> None:
        try:
            self._metrics.swept_objects.inc(await sweep.delete_classifier(deletion.target))
        except OtherInstallationError as error:
            if not deletion.reported:
                await self._report_kept(deletion.target, error.ownership)
            self._queue.add_after(replace(deletion, reported=True), spread(OTHER_STORE_RETRY_SECONDS))
            return
        if not deletion.deleted_once:
            self._queue.add_after(replace(deletion, deleted_once=True), AGAIN_SECONDS)
            return
        self._pending.discard(deletion.target)
        self._changed.set()

    async def _report_kept(self, target: StoredClassifier, ownership: Ownership) -> None:
        namespace, classifier_id = target
        note = (
            f"namespace {namespace}: the stored data of the deleted Classifier with the id {classifier_id} is kept, because "
            f"the object store belongs to the installation {ownership.owner}, not to this one, {ownership.installation}; it is "
            "deleted as soon as the store belongs to this installation; if the other one no longer exists, set "
            f"OCELLI_ADOPT_STORE (in the chart: store.adopt) to {ownership.owner}"
        )
        logger.warning("stored data of a deleted Classifier is kept", extra={"tenant": namespace, "id": classifier_id})
        await self._installation.report(Occurrence(type="Warning", reason="DeletionPostponed", action="Delete", note=note))

    async def _save_pending(self) -> None:
        saved: Collection[StoredClassifier] | None = None
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                key = deletions_key(await self._installation.identify())
                if saved is None:
                    nothing: frozenset[StoredClassifier] = frozenset()
                    saved = await load_document(self._store, key, _parse_pending, absent=nothing, unreadable=nothing)
                    self._pending |= saved
                    for target in saved:
                        # The previous leader has reported what there was to report.
                        self._queue.add(_Deletion(target=target, reported=True))
                pending = frozenset(self._pending)
                if pending != saved:
                    await self._store.put(key, json.dumps({"pending": sorted(pending)}).encode())
                    saved = pending
            except (ClusterError, ObjectStoreError) as error:
                logger.warning("pending deletions could not be saved; retrying", extra={"error": str(error)})
                self._changed.set()
                await asyncio.sleep(spread(SAVE_RETRY_SECONDS))
            await asyncio.sleep(SAVE_SECONDS)


def _parse_pending(document: dict[str, Any]) -> frozenset[StoredClassifier]:
    return frozenset((str(namespace), str(classifier_id)) for namespace, classifier_id in document["pending"])
