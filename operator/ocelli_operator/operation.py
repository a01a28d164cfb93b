"""The running operator: its watches, its Lease, the workers behind it and the sweep. It knows nothing of kopf.

Every operator watches, so that a successor begins with warm caches; only the one that holds the Lease works.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from ocelli_api.classifier import Classifier
from ocelli_cluster.client import ClusterClient, ClusterError, ConflictError
from ocelli_cluster.lease import LeaderLease, LeaseName
from ocelli_cluster.resources import ObjectKey
from ocelli_operator.cluster_view import ClusterView, ViewScope
from ocelli_operator.config import OperatorConfig
from ocelli_operator.events import EventRecorder
from ocelli_operator.metrics import OperatorMetrics
from ocelli_operator.observed import StartKind
from ocelli_operator.reconcile import Reconciler, ReconcilerParts
from ocelli_operator.starts import StartLimits, Starts
from ocelli_operator.status import Occurrence
from ocelli_operator.sweep import StoreSweep
from ocelli_operator.training_store import TrainingStore
from ocelli_operator.work_queue import WorkQueue, spread
from ocelli_storage.object_store import ObjectStore, ObjectStoreError

logger = logging.getLogger(__name__)

BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_LIMIT_SECONDS = 60.0
CONFLICT_DELAY_SECONDS = 0.05
RESYNC_SECONDS = 600.0
"""Every Classifier is looked at this often though nothing was heard of it: a net below the watches."""
TURN_SECONDS = 0.5
"""How often it is looked whose turn it is, where not everything may start at once."""
UPGRADE_GRACE_SECONDS = 60.0
"""The Deployment controller says that a deadline has passed; whoever never hears that waits for so long in addition."""
DELETED_AGAIN_SECONDS = 45.0
"""A trainer may outlive its Classifier by its grace period of 30 seconds, and write until then."""


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(kw_only=True)
class _Trouble:
    """Passes over one Classifier that could not be ended."""

    delay_seconds: float = BACKOFF_FIRST_SECONDS
    told: str = ""


class Operation:
    """Runs until cancelled. Liveness is `blind_seconds` and `oldest_pass`."""

    def __init__(
        self, client: ClusterClient, store: ObjectStore, config: OperatorConfig, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._config = config
        self._clock = clock
        self._queue: WorkQueue[ObjectKey] = WorkQueue()
        self._deletions: WorkQueue[tuple[str, str]] = WorkQueue()
        self._troubles: dict[ObjectKey, _Trouble] = {}
        self._leading = False
        self.metrics = OperatorMetrics()
        client.on_write = lambda method, plural: self.metrics.writes.labels(method, plural).inc()
        scope = ViewScope(
            namespaces=config.namespaces,
            timeouts=config.watch_timeouts,
            gpu_resource=config.children.gpu.resource if config.watch_nodes else None,
        )
        limits = StartLimits(
            trainings=config.children.trainings_starting_limit,
            rollouts=config.children.rollouts_limit,
            upgrade_counted_for=timedelta(seconds=config.children.rollout_deadline_seconds + UPGRADE_GRACE_SECONDS),
        )
        self._starts = Starts(limits, clock)
        self._view = ClusterView(client, scope, self._changed, self._deleted)
        self._events = EventRecorder(client, config.identity)
        self._reconciler = Reconciler(
            ReconcilerParts(
                client=client,
                view=self._view,
                store=TrainingStore(store),
                events=self._events,
                metrics=self.metrics,
                starts=self._starts,
                settings=config.children,
                clock=clock,
            )
        )
        self._sweep = StoreSweep(client, store, config.namespaces)
        self._lease = LeaderLease(
            client, LeaseName(namespace=config.lease_namespace, name=config.lease_name, identity=config.identity)
        )
        self.metrics.observe_classifiers(self._view.classifiers)
        self.metrics.queue_length.set_function(lambda: len(self._queue))
        for kind in StartKind:
            self.metrics.starts_under_way.labels(kind).set_function(partial(self._starts.count_under_way, kind))
            self.metrics.starts_waiting.labels(kind).set_function(partial(self._starts.count_waiting, kind))
        self.metrics.leader.set_function(lambda: float(self._leading))
        self.metrics.watch_age_seconds.set_function(lambda: self.blind_seconds)
        self.metrics.pass_age_seconds.set_function(lambda: oldest[1] if (oldest := self.oldest_pass()) else 0.0)

    @property
    def blind_seconds(self) -> float:
        """The longest time for which one of the watches has heard nothing of the API server."""
        return self._view.contact_age_seconds

    def oldest_pass(self) -> tuple[ObjectKey, float] | None:
        """The pass that has been under way for the longest time: over which Classifier, and for how many seconds."""
        return self._queue.oldest_work()

    def wake(self, key: ObjectKey) -> None:
        """Look at a Classifier soon."""
        if self._leading:
            self._queue.add(key)

    async def run(self) -> None:
        """Watch, and work while the Lease is held."""
        server = self.metrics.serve(self._config.bind_address, self._config.metrics_port)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._view.run())
                tasks.create_task(self._lead())
        finally:
            await asyncio.to_thread(server.shutdown)
            server.server_close()

    async def _lead(self) -> None:
        await self._view.wait_until_synced()
        logger.info("caches are complete", extra={"classifiers": len(self._view.classifiers())})
        while True:
            await self._lease.acquire()
            self._leading = True
            work = asyncio.create_task(self._work())
            keep = asyncio.create_task(self._lease.keep())
            try:
                await asyncio.wait({work, keep}, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    work.result()
            finally:
                self._leading = False
                for task in (work, keep):
                    task.cancel()
                await asyncio.gather(work, keep, return_exceptions=True)
                self._queue.clear()
                self._starts.clear()
                self._deletions.clear()
                leading = asyncio.current_task()
                if leading is not None and leading.cancelling():
                    await self._lease.release()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._config.workers):
                tasks.create_task(self._reconcile_keys())
            tasks.create_task(self._give_turns())
            tasks.create_task(self._delete_stored())
            tasks.create_task(self._sweep_regularly())
            while True:
                for classifier in self._view.classifiers():
                    self._queue.add(ObjectKey(classifier.namespace, classifier.name), later=True)
                await asyncio.sleep(RESYNC_SECONDS)

    async def _give_turns(self) -> None:
        """Look again at those that wait for their turn, when it has come."""
        while True:
            await asyncio.sleep(TURN_SECONDS)
            for key in self._starts.find_next():
                self._queue.add(key)

    async def _reconcile_keys(self) -> None:
        while True:
            key = await self._queue.take()
            try:
                await self._reconcile(key)
            finally:
                self._queue.done(key)

    async def _reconcile(self, key: ObjectKey) -> None:
        started_at = time.perf_counter()
        try:
            delay_seconds = await self._reconciler.reconcile(key)
        except ConflictError as error:
            # Somebody else wrote in between; the watch is about to bring what they wrote.
            logger.debug("conflict: %s", error, extra={"classifier": str(key)})
            self.metrics.reconciles.labels("conflict").inc()
            self._queue.add_after(key, CONFLICT_DELAY_SECONDS)
        except Exception as error:
            self.metrics.reconciles.labels("error").inc()
            await self._tell_trouble(key, error)
        else:
            self._troubles.pop(key, None)
            if delay_seconds == 0.0:
                self._queue.add(key)
            elif delay_seconds is not None:
                self._queue.add_after(key, delay_seconds)
        finally:
            self.metrics.reconcile_seconds.observe(time.perf_counter() - started_at)

    async def _tell_trouble(self, key: ObjectKey, error: Exception) -> None:
        trouble = self._troubles.setdefault(key, _Trouble())
        delay_seconds = spread(trouble.delay_seconds)
        self._queue.add_after(key, delay_seconds)
        logger.error(
            "pass failed, will be tried again",
            exc_info=error,
            extra={"classifier": str(key), "delay_seconds": round(delay_seconds, 2)},
        )
        trouble.delay_seconds = min(trouble.delay_seconds * 2, BACKOFF_LIMIT_SECONDS)
        told = f"{type(error).__name__}: {error}"
        classifier = self._view.classifier(key)
        if told != trouble.told and classifier is not None:
            trouble.told = told
            note = f"the operator could not do its work and tries again: {told}"
            await self._events.record(
                classifier, Occurrence(type="Warning", reason="ReconcileFailed", action="Reconcile", note=note)
            )

    def _changed(self, key: ObjectKey) -> None:
        self._starts.observe(key, self._view.family(key))
        self.wake(key)

    def _deleted(self, classifier: Classifier) -> None:
        self._reconciler.forget(classifier)
        self._troubles.pop(ObjectKey(classifier.namespace, classifier.name), None)
        self._starts.forget(ObjectKey(classifier.namespace, classifier.name))
        if self._leading and classifier.classifier_id is not None:
            stored = (classifier.namespace, classifier.classifier_id)
            self._deletions.add(stored)
            self._deletions.add_after(stored, DELETED_AGAIN_SECONDS)

    async def _delete_stored(self) -> None:
        while True:
            stored = await self._deletions.take()
            try:
                self.metrics.swept_objects.inc(await self._sweep.delete_classifier(*stored))
            except (ClusterError, ObjectStoreError) as error:
                logger.warning("stored bytes could not be deleted", extra={"id": stored[1], "error": str(error)})
                self._deletions.add_after(stored, spread(BACKOFF_LIMIT_SECONDS))
            finally:
                self._deletions.done(stored)

    async def _sweep_regularly(self) -> None:
        minimum_age = timedelta(seconds=self._config.sweep_minimum_age_seconds)
        while True:
            try:
                self.metrics.swept_objects.inc(await self._sweep.sweep(self._clock(), minimum_age))
            except (ClusterError, ObjectStoreError) as error:
                # The next sweep sees everything again.
                logger.warning("store could not be swept", extra={"error": str(error)})
            except Exception:
                logger.exception("store could not be swept")
            await asyncio.sleep(self._config.sweep_interval_seconds)
