"""The running operator: its watches, its Lease, the workers behind it and the sweep. It knows nothing of kopf.

Every operator watches, so that a successor begins with warm caches; only the one that holds the Lease works.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from ocelli_cluster.client import ClusterClient, ClusterError, ConflictError
from ocelli_cluster.lease import LeaderLease, LeaseLostError, LeaseName
from ocelli_cluster.resource_cache import Unreadable
from ocelli_cluster.resources import LEASES, ObjectKey

from ocelli_api.classifier import Classifier
from ocelli_operator.cluster_view import ClusterView, ViewScope
from ocelli_operator.deletions import Deletions
from ocelli_operator.events import EventRecorder, Subject
from ocelli_operator.metrics import OperatorMetrics
from ocelli_operator.observed import StartKind
from ocelli_operator.reconcile import Reconciler, ReconcilerParts
from ocelli_operator.settings import OperatorSettings
from ocelli_operator.starts import StartLimits, Starts
from ocelli_operator.status import Occurrence
from ocelli_operator.store_owner import Ownership
from ocelli_operator.sweep import StopReason, StoredClassifier, StoreSweep, SweepReport, SweepSettings
from ocelli_operator.training_store import TrainingStore
from ocelli_operator.work_queue import WorkQueue, spread
from ocelli_storage.object_store import ObjectStore, ObjectStoreError

logger = logging.getLogger(__name__)

BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_LIMIT_SECONDS = 60.0
CONFLICT_DELAY_SECONDS = 0.05
CLOSED_DELAY_SECONDS = 5.0
"""Before the next look at a Classifier whose namespace may not be read, or that cannot be read itself."""
CONFLICTS_LIMIT = 100
"""After this many in a row, five seconds or more, the cause is not a write that the watch is about to deliver."""
RESYNC_SECONDS = 600.0
"""Every Classifier is looked at this often though nothing was heard of it: a net below the watches."""
WATCHING_SECONDS = 1.0
"""How often it is looked whether namespaces were closed or opened, and objects became unreadable."""
TURN_SECONDS = 0.5
"""How often it is looked whose turn it is, where not everything may start at once."""
UPGRADE_GRACE_SECONDS = 60.0
"""The Deployment controller says that a deadline has passed; whoever never hears that waits for so long in addition."""


def tell_error(error: Exception) -> str:
    """What people are told of an error: an answer of the API server or the store in its words, of anything else no detail."""
    if isinstance(error, ClusterError | ObjectStoreError):
        return str(error)
    return "an unexpected error; the operator's log has the details"


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(kw_only=True)
class _Trouble:
    """Passes over one Classifier that could not be ended."""

    delay_seconds: float = BACKOFF_FIRST_SECONDS
    told: str = ""
    conflicts: int = 0
    """In a row."""


@dataclass(kw_only=True)
class _Told:
    """What was told by Events while this operator leads, so that each thing is told once."""

    unreadable: dict[tuple[str, ObjectKey], str] = field(default_factory=dict)
    closed: dict[str, str] = field(default_factory=dict)
    complete: set[str] = field(default_factory=set)
    sweep: str = ""
    crd_missing: bool = False


class Operation:
    """Runs until cancelled. Liveness is `watch_age_seconds` and `oldest_reconcile`."""

    def __init__(
        self, client: ClusterClient, store: ObjectStore, config: OperatorSettings, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._client = client
        self._store = store
        self._config = config
        self._clock = clock
        self._queue: WorkQueue[ObjectKey] = WorkQueue()
        self._deletions = Deletions(store, self._identify)
        self._troubles: dict[ObjectKey, _Trouble] = {}
        self._told = _Told()
        self._leading = False
        self.metrics = OperatorMetrics()
        client.on_write = self._before_write
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
        training_store = TrainingStore(store)
        self._reconciler = Reconciler(
            ReconcilerParts(
                client=client,
                view=self._view,
                store=training_store,
                events=self._events,
                metrics=self.metrics,
                starts=self._starts,
                settings=config.children,
                clock=clock,
            )
        )
        # Lists of hundreds of namespaces may wait for connections; the Lease must not wait behind them.
        lease_client = client.apart()
        lease_client.on_write = self._count_write
        self._lease = LeaderLease(
            lease_client, LeaseName(namespace=config.lease_namespace, name=config.lease_name, identity=config.identity)
        )
        self.metrics.observe_classifiers(self._view.classifiers)
        self.metrics.queue_length.set_function(lambda: len(self._queue))
        for kind in StartKind:
            self.metrics.starts_in_progress.labels(kind).set_function(partial(self._starts.count_under_way, kind))
            self.metrics.starts_waiting.labels(kind).set_function(partial(self._starts.count_waiting, kind))
        self.metrics.crd_missing.set_function(lambda: float(self._view.is_crd_missing))
        self.metrics.leader.set_function(lambda: float(self._leading))
        self.metrics.network_policies_blocked.set_function(
            lambda: float(self._reconciler.count_blocked_network_policies() if self._leading else 0)
        )
        self.metrics.store_reachable.set_function(lambda: float(training_store.is_reachable))
        self.metrics.watch_age_seconds.set_function(lambda: self.watch_age_seconds)
        self.metrics.reconcile_age_seconds.set_function(lambda: oldest[1] if (oldest := self.oldest_reconcile()) else 0.0)

    @property
    def watch_age_seconds(self) -> float:
        """The longest time for which one of the watches has heard nothing of the API server."""
        return self._view.contact_age_seconds

    def oldest_reconcile(self) -> tuple[ObjectKey, float] | None:
        """The pass that has been under way for the longest time: over which Classifier, and for how many seconds."""
        return self._queue.oldest_work()

    def wake(self, key: ObjectKey) -> None:
        """Look at a Classifier soon."""
        if self._leading:
            self._queue.add(key)

    def _count_write(self, method: str, plural: str) -> None:
        self.metrics.writes.labels(method, plural).inc()

    def _before_write(self, method: str, plural: str) -> None:
        if not self._lease.is_held:
            # The process stood still for so long that another one may lead by now.
            raise LeaseLostError(f"{method} {plural} was not sent: the Lease was not renewed in time")
        self._count_write(method, plural)

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
                self._report_sweep(SweepReport())
                self.metrics.unreadable_objects.clear()
                self.metrics.namespace_forbidden.clear()
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
        self._told = _Told(complete=self._view.complete_namespaces())
        settings = SweepSettings(
            namespaces=self._config.namespaces,
            minimum_age=timedelta(seconds=self._config.sweep_minimum_age_seconds),
            limit_percent=self._config.sweep_limit_percent,
            adopted_installation=self._config.adopt_store,
        )
        sweep = StoreSweep(self._client, self._store, settings, self._identify)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._config.workers):
                tasks.create_task(self._reconcile_keys())
            tasks.create_task(self._give_turns())
            tasks.create_task(self._deletions.run(sweep, self.metrics.swept_objects.inc, self._tell_kept))
            tasks.create_task(self._sweep_regularly(sweep))
            tasks.create_task(self._look_around())
            while True:
                self._add_all()
                await asyncio.sleep(RESYNC_SECONDS)

    def _add_all(self) -> None:
        for classifier in self._view.classifiers():
            self._queue.add(ObjectKey(classifier.namespace, classifier.name), later=True)

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
            # A pass over a settled Classifier waits for nothing: thousands in a row would keep the Lease from being renewed.
            await asyncio.sleep(0)

    async def _reconcile(self, key: ObjectKey) -> None:
        if not self._view.can_be_judged(key):
            # Others must not wait behind it, and what falls due in the meantime must not be lost.
            self._starts.forget(key)
            self._queue.add_after(key, CLOSED_DELAY_SECONDS)
            return
        started_at = time.perf_counter()
        try:
            delay_seconds = await self._reconciler.reconcile(key)
        except ConflictError as error:
            # Somebody else wrote in between; the watch is about to bring what they wrote.
            logger.debug("conflict: %s", error, extra={"classifier": str(key)})
            self.metrics.reconciles.labels("conflict").inc()
            trouble = self._troubles.setdefault(key, _Trouble())
            trouble.conflicts += 1
            if trouble.conflicts < CONFLICTS_LIMIT:
                self._queue.add_after(key, CONFLICT_DELAY_SECONDS)
            else:
                self.metrics.reconciles.labels("error").inc()
                await self._tell_trouble(key, error)
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
        told = tell_error(error)
        classifier = self._view.classifier(key)
        if told != trouble.told and classifier is not None:
            trouble.told = told
            note = f"the operator could not reconcile the Classifier and tries again: {told}"
            await self._events.record(
                classifier, Occurrence(type="Warning", reason="ReconcileFailed", action="Reconcile", note=note)
            )

    def _changed(self, key: ObjectKey) -> None:
        self._starts.observe(key, self._view.family(key))
        self.wake(key)

    def _deleted(self, classifier: Classifier, deletion_seen: bool) -> None:
        self._reconciler.forget(classifier)
        self._troubles.pop(ObjectKey(classifier.namespace, classifier.name), None)
        self._starts.forget(ObjectKey(classifier.namespace, classifier.name))
        # One that is merely missing may be so because a backup was restored: its bytes are for the sweep.
        if self._leading and deletion_seen and classifier.classifier_id is not None:
            self._deletions.add((classifier.namespace, classifier.classifier_id))

    async def _sweep_regularly(self, sweep: StoreSweep) -> None:
        while True:
            try:
                report = await sweep.sweep(self._clock())
                self.metrics.swept_objects.inc(report.deleted)
                self._report_sweep(report)
                for key in self._reconciler.note_lost_artifacts(report.lost_artifacts):
                    self.wake(key)
                if report.message != self._told.sweep:
                    self._told.sweep = report.message
                    if report.message:
                        await self._tell_installation("Warning", "SweepStopped", "Sweep", report.message)
            except (ClusterError, ObjectStoreError) as error:
                # The next sweep sees everything again.
                logger.warning("store could not be swept", extra={"error": str(error)})
            except Exception:
                logger.exception("store could not be swept")
            await asyncio.sleep(self._config.sweep_interval_seconds)

    def _report_sweep(self, report: SweepReport) -> None:
        self.metrics.sweep_stopped.clear()
        for reason in StopReason:
            stopped = report.stopped is reason
            for namespace in (report.stopped_namespaces if stopped else ()) or ("",):
                self.metrics.sweep_stopped.labels(str(reason), namespace).set(stopped)
        self.metrics.artifacts_lost.set(len(report.lost_artifacts))

    async def _look_around(self) -> None:
        """Tell of objects that cannot be read, of namespaces that were closed or opened, and of a deleted resource."""
        while True:
            try:
                await self._tell_unreadable()
                await self._tell_namespaces()
                await self._tell_resource()
            except Exception:
                logger.exception("objects and namespaces could not be looked at")
            await asyncio.sleep(WATCHING_SECONDS)

    async def _tell_unreadable(self) -> None:
        found = {(item.resource.plural, item.key): item for item in self._view.unreadable()}
        before = self._told.unreadable
        self._told.unreadable = {name: item.problem for name, item in found.items()}
        for plural in {plural for plural, _ in found.keys() | before.keys()}:
            self.metrics.unreadable_objects.labels(plural).set(sum(name == plural for name, _ in found))
        for name, item in found.items():
            if before.get(name) != item.problem and item.key.namespace:
                await self._tell_unreadable_object(item)

    async def _tell_unreadable_object(self, item: Unreadable) -> None:
        note = (
            f"this release of the operator cannot read {item.resource.kind} {item.key}, and leaves it and all that is stored "
            f"for it as they are: {item.problem}; upgrade the operator, or take out what it does not know"
        )
        subject = Subject(resource=item.resource, key=item.key, uid=item.uid, resource_version=item.resource_version)
        await self._events.record_about(subject, Occurrence(type="Warning", reason="Unreadable", action="Reconcile", note=note))

    async def _tell_namespaces(self) -> None:
        closed, before = self._view.forbidden_namespaces(), self._told.closed
        self._told.closed = closed
        for namespace in self._config.namespaces:
            self.metrics.namespace_forbidden.labels(namespace).set(namespace in closed)
        for namespace in closed.keys() - before.keys():
            note = (
                f"namespace {namespace} may not be read ({closed[namespace]} are forbidden), and nothing is done in it; the "
                "others go on. If it was deleted, take it out of OCELLI_NAMESPACES (in the chart: namespaces); else give the "
                "operator its Role there again, by helm upgrade"
            )
            logger.error("namespace is closed", extra={"namespace": namespace, "forbidden": closed[namespace]})
            await self._tell_installation("Warning", "NamespaceClosed", "Watch", note)
        for namespace in before.keys() - closed.keys():
            logger.info("namespace is open again", extra={"namespace": namespace})
            await self._tell_installation("Normal", "NamespaceOpened", "Watch", f"namespace {namespace} can be read again")
        opened = self._view.complete_namespaces()
        if opened - self._told.complete:
            # Nothing was done in them meanwhile.
            self._add_all()
        self._told.complete = opened

    async def _tell_resource(self) -> None:
        missing = self._view.is_crd_missing
        if missing:
            # By the time of the next try the resource may be back, and its Classifiers not yet restored.
            self._deletions.give_up()
        if missing and not self._told.crd_missing:
            note = (
                "the CustomResourceDefinition classifiers.ocelli.dev was deleted, and every Classifier with it; what is stored "
                "for them is kept; install the CRD again (Helm: charts/ocelli-crds), then restore the Classifiers from a backup"
            )
            await self._tell_installation("Warning", "CRDMissing", "Watch", note)
        self._told.crd_missing = missing

    async def _tell_kept(self, gone: StoredClassifier, ownership: Ownership) -> None:
        namespace, classifier_id = gone
        note = (
            f"what is stored for the deleted Classifier with the id {classifier_id} of namespace {namespace} is kept, because "
            f"the object store belongs to the installation {ownership.owner}, not to this one, {ownership.installation}; it is "
            "deleted when the store belongs to this installation: if the other one is gone, set OCELLI_ADOPT_STORE (in the "
            f"chart: store.adopt) to {ownership.owner}"
        )
        logger.warning("stored bytes of a deleted Classifier are kept", extra={"tenant": namespace, "id": classifier_id})
        await self._tell_installation("Warning", "DeletionPostponed", "Delete", note)

    async def _identify(self) -> str:
        """The name of this installation: the UID of its Lease. Raises ClusterError."""
        return (await self._read_lease()).uid

    async def _read_lease(self) -> Subject:
        namespace, name = self._config.lease_namespace, self._config.lease_name
        metadata = (await self._client.get(LEASES, namespace, name))["metadata"]
        return Subject(
            resource=LEASES,
            key=ObjectKey(namespace, name),
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
        )

    async def _tell_installation(self, event_type: str, reason: str, action: str, note: str) -> None:
        """Send an Event about the Lease: it stands for the installation."""
        occurrence = Occurrence(type=event_type, reason=reason, action=action, note=note)
        try:
            await self._events.record_about(await self._read_lease(), occurrence)
        except ClusterError as error:
            logger.warning("event could not be sent", extra={"reason": reason, "error": str(error)})
