"""The running operator: watches, Lease, workers and sweep. It must not know kopf.

Every operator process watches, so that a new leader starts with complete caches. Only the one that holds the Lease works.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from ocelli_api.classifier import Classifier
from ocelli_api.conditions import ConditionType, TrainedReason
from ocelli_cluster.client import ClusterClient, ClusterError, ConflictError
from ocelli_cluster.lease import LeaderLease, LeaseLostError, LeaseName
from ocelli_cluster.resources import ObjectKey
from ocelli_operator.cluster_view import ClusterView, ViewScope
from ocelli_operator.deletions import Deletions
from ocelli_operator.events import EventRecorder
from ocelli_operator.installation import Installation
from ocelli_operator.metrics import OperatorMetrics
from ocelli_operator.observed import StartKind
from ocelli_operator.problems import ProblemReporter, find_problems
from ocelli_operator.reconcile import Reconciler, ReconcilerParts
from ocelli_operator.settings import OperatorSettings
from ocelli_operator.source_polls import HeaderReader, SourcePolls
from ocelli_operator.starts import StartLimits, Starts, find_waiting_since
from ocelli_operator.status import Occurrence
from ocelli_operator.sweep import StopReason, StoreSweep, SweepReport, SweepSettings
from ocelli_operator.training_store import TrainingStore
from ocelli_operator.work_queue import WorkQueue, spread
from ocelli_storage.object_store import ObjectStore, ObjectStoreError

logger = logging.getLogger(__name__)

BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_LIMIT_SECONDS = 60.0
CONFLICT_DELAY_SECONDS = 0.05
UNREADABLE_DELAY_SECONDS = 5.0
"""Before the next attempt at a Classifier that cannot be parsed, or whose namespace is forbidden."""
CONFLICTS_LIMIT = 100
"""After this many conflicts in a row, which take at least five seconds, waiting for the watch does not help."""
RESYNC_SECONDS = 600.0
"""Every Classifier is reconciled this often without a change, as a safety net for the watches."""
PROBLEMS_SECONDS = 1.0
"""How often problems are looked for."""
STARTS_SECONDS = 0.5
"""How often waiting Classifiers are checked for a free start."""
UPGRADE_GRACE_SECONDS = 60.0
"""The Deployment controller reports a missed deadline. If that report never comes, the upgrade counts this much longer."""


def describe_error(error: Exception) -> str:
    """The message of an API server or store error; no details of other errors, which users can do nothing about."""
    if isinstance(error, ClusterError | ObjectStoreError):
        return str(error)
    return "an unexpected error; the operator's log has the details"


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(kw_only=True)
class _Failures:
    """Failed reconciles of one Classifier."""

    delay_seconds: float = BACKOFF_FIRST_SECONDS
    reported: str = ""
    """The last error that an Event reported."""
    conflicts: int = 0
    """In a row."""


class Operation:
    """Runs until cancelled. Liveness probes read `watch_age_seconds` and `oldest_reconcile`."""

    def __init__(
        self, client: ClusterClient, store: ObjectStore, config: OperatorSettings, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._client = client
        self._store = store
        self._config = config
        self._clock = clock
        self._queue: WorkQueue[ObjectKey] = WorkQueue()
        self._failures: dict[ObjectKey, _Failures] = {}
        self._leading = False
        self._sweep_message = ""
        self.metrics = OperatorMetrics()
        client.on_write = self._before_write
        scope = ViewScope(
            namespaces=config.namespaces,
            timeouts=config.watch_timeouts,
            gpu_resource=config.children.gpu.resource if config.watch_nodes else None,
        )
        limits = StartLimits(
            trainings=config.children.trainings_starting_limit,
            running=config.children.trainings_limit,
            running_in_namespace=config.children.namespace_trainings_limit,
            rollouts=config.children.rollouts_limit,
            upgrade_counted_for=timedelta(seconds=config.children.rollout_deadline_seconds + UPGRADE_GRACE_SECONDS),
        )
        self._starts = Starts(limits, clock)
        self._view = ClusterView(client, scope, self._changed, self._deleted)
        self._events = EventRecorder(client, config.identity)
        self._installation = Installation(client, self._events, ObjectKey(config.lease_namespace, config.lease_name))
        self._deletions = Deletions(store, self._installation, self.metrics)
        training_store = TrainingStore(store)
        self._source_polls = SourcePolls(reader=HeaderReader(config.children.connection_rules), wake=self.wake)
        self._reconciler = Reconciler(
            ReconcilerParts(
                client=client,
                view=self._view,
                store=training_store,
                events=self._events,
                metrics=self.metrics,
                starts=self._starts,
                source_polls=self._source_polls,
                settings=config.children,
                clock=clock,
            )
        )
        # Lists of hundreds of namespaces may use all connections, and the Lease must not wait behind them.
        lease_client = client.with_own_pool()
        lease_client.on_write = self._count_write
        self._lease = LeaderLease(
            lease_client, LeaseName(namespace=config.lease_namespace, name=config.lease_name, identity=config.identity)
        )
        self._connect_metrics(training_store)

    def _connect_metrics(self, training_store: TrainingStore) -> None:
        """Gauges that are read at each scrape."""
        metrics = self.metrics
        metrics.observe_classifiers(self._view.classifiers)
        for kind in StartKind:
            metrics.starts_in_progress.labels(kind).set_function(partial(self._starts.count_in_progress, kind))
            metrics.starts_waiting.labels(kind).set_function(partial(self._starts.count_waiting, kind))
        metrics.trainings_running.set_function(self._starts.count_running)
        metrics.queue_length.set_function(lambda: len(self._queue))
        metrics.crd_missing.set_function(lambda: float(self._view.is_crd_missing))
        metrics.leader.set_function(lambda: float(self._leading))
        metrics.network_policies_blocked.set_function(
            lambda: float(self._reconciler.count_blocked_network_policies() if self._leading else 0)
        )
        metrics.store_reachable.set_function(lambda: float(training_store.is_reachable))
        metrics.watch_age_seconds.set_function(lambda: self.watch_age_seconds)
        metrics.reconcile_age_seconds.set_function(lambda: oldest[1] if (oldest := self.oldest_reconcile()) else 0.0)

    @property
    def watch_age_seconds(self) -> float:
        """Seconds since the most silent watch last received something."""
        return self._view.watch_age_seconds

    def oldest_reconcile(self) -> tuple[ObjectKey, float] | None:
        """The Classifier whose reconcile has been running longest, and for how many seconds; None if none is running."""
        return self._queue.oldest_work()

    def wake(self, key: ObjectKey) -> None:
        """Reconcile a Classifier soon."""
        if self._leading:
            self._queue.add(key)

    def _count_write(self, method: str, plural: str) -> None:
        self.metrics.writes.labels(method, plural).inc()

    def _before_write(self, method: str, plural: str) -> None:
        if not self._lease.is_held:
            # The process was paused for so long that another one may lead by now.
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
                self._show_sweep(SweepReport())
                self.metrics.unreadable_objects.clear()
                self.metrics.namespace_forbidden.clear()
                for task in (work, keep):
                    task.cancel()
                await asyncio.gather(work, keep, return_exceptions=True)
                self._queue.clear()
                self._starts.clear()
                self._source_polls.clear()
                self._deletions.clear()
                leading = asyncio.current_task()
                if leading is not None and leading.cancelling():
                    await self._lease.release()

    async def _work(self) -> None:
        settings = SweepSettings(
            namespaces=self._config.namespaces,
            minimum_age=timedelta(seconds=self._config.sweep_minimum_age_seconds),
            limit_percent=self._config.sweep_limit_percent,
            adopted_installation=self._config.adopt_store,
        )
        sweep = StoreSweep(self._client, self._store, settings, self._installation.identify)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._config.workers):
                tasks.create_task(self._reconcile_keys())
            tasks.create_task(self._wake_waiting())
            tasks.create_task(self._deletions.run(sweep))
            tasks.create_task(self._sweep_regularly(sweep))
            tasks.create_task(self._watch_problems())
            tasks.create_task(self._source_polls.run())
            self._restore_order()
            while True:
                self._add_all()
                await asyncio.sleep(RESYNC_SECONDS)

    def _restore_order(self) -> None:
        """Trainings that waited for a predecessor keep their places, whichever of them is reconciled first."""
        for classifier in self._view.classifiers():
            key = ObjectKey(classifier.namespace, classifier.name)
            trained = classifier.status.condition(ConditionType.TRAINED)
            is_queued = trained is not None and trained.reason == TrainedReason.QUEUED
            if is_queued and not self._view.jobs(key):
                # If it waits for something else, its reconcile takes it out again. With `queueName`, its check may wait.
                self._starts.note(key, begins=(), waits={StartKind.TRAINING}, since=find_waiting_since(classifier))

    def _add_all(self) -> None:
        for classifier in self._view.classifiers():
            self._queue.add(ObjectKey(classifier.namespace, classifier.name), later=True)

    async def _wake_waiting(self) -> None:
        """Reconcile Classifiers that waited for a start and may start now."""
        while True:
            await asyncio.sleep(STARTS_SECONDS)
            for key in self._starts.find_next():
                self._queue.add(key)

    async def _reconcile_keys(self) -> None:
        while True:
            key = await self._queue.take()
            try:
                await self._reconcile(key)
            finally:
                self._queue.done(key)
            # To reconcile a settled Classifier never awaits: thousands in a row would block the renewal of the Lease.
            await asyncio.sleep(0)

    async def _reconcile(self, key: ObjectKey) -> None:
        if not self._view.can_reconcile(key):
            # Others must not wait behind it, and a retry that is due meanwhile must not be lost.
            self._starts.forget(key)
            self._queue.add_after(key, UNREADABLE_DELAY_SECONDS)
            return
        started_at = time.perf_counter()
        try:
            delay_seconds = await self._reconciler.reconcile(key)
        except ConflictError as error:
            # The object was changed since it was read; the watch will deliver that change.
            logger.debug("conflict: %s", error, extra={"classifier": str(key)})
            self.metrics.reconciles.labels("conflict").inc()
            failures = self._failures.setdefault(key, _Failures())
            failures.conflicts += 1
            if failures.conflicts < CONFLICTS_LIMIT:
                self._queue.add_after(key, CONFLICT_DELAY_SECONDS)
            else:
                await self._report_failure(key, error)
        except Exception as error:
            await self._report_failure(key, error)
        else:
            self._failures.pop(key, None)
            if delay_seconds == 0.0:
                self._queue.add(key)
            elif delay_seconds is not None:
                self._queue.add_after(key, delay_seconds)
        finally:
            self.metrics.reconcile_seconds.observe(time.perf_counter() - started_at)

    async def _report_failure(self, key: ObjectKey, error: Exception) -> None:
        """Schedule a retry, and send an Event unless the last one had the same message."""
        self.metrics.reconciles.labels("error").inc()
        failures = self._failures.setdefault(key, _Failures())
        delay_seconds = spread(failures.delay_seconds)
        self._queue.add_after(key, delay_seconds)
        logger.error(
            "reconcile failed; retrying",
            exc_info=error,
            extra={"classifier": str(key), "delay_seconds": round(delay_seconds, 2)},
        )
        failures.delay_seconds = min(failures.delay_seconds * 2, BACKOFF_LIMIT_SECONDS)
        message = describe_error(error)
        classifier = self._view.classifier(key)
        if message != failures.reported and classifier is not None:
            failures.reported = message
            note = f"Classifier {key}: reconcile failed, the operator retries: {message}"
            await self._events.record(
                classifier, Occurrence(type="Warning", reason="ReconcileFailed", action="Reconcile", note=note)
            )

    def _changed(self, key: ObjectKey) -> None:
        self._starts.observe(key, self._view.workloads(key))
        self.wake(key)

    def _deleted(self, classifier: Classifier, deletion_seen: bool) -> None:
        key = ObjectKey(classifier.namespace, classifier.name)
        self._reconciler.forget(classifier)
        self._failures.pop(key, None)
        self._starts.forget(key)
        # If it is only missing from a list, a backup may have been restored: the sweep decides about its stored data.
        if self._leading and deletion_seen and classifier.classifier_id is not None:
            self._deletions.add((classifier.namespace, classifier.classifier_id))

    async def _sweep_regularly(self, sweep: StoreSweep) -> None:
        while True:
            try:
                report = await sweep.sweep(self._clock())
                self.metrics.swept_objects.inc(report.deleted)
                self._show_sweep(report)
                for key in self._reconciler.note_lost_artifacts(report.lost_artifacts):
                    self.wake(key)
            except (ClusterError, ObjectStoreError) as error:
                # The next sweep starts from scratch.
                logger.warning("sweep failed", extra={"error": str(error)})
            except Exception:
                logger.exception("sweep failed")
            await asyncio.sleep(self._config.sweep_interval_seconds)

    def _show_sweep(self, report: SweepReport) -> None:
        self._sweep_message = report.message
        self.metrics.sweep_stopped.clear()
        for reason in StopReason:
            stopped = report.stopped is reason
            for namespace in (report.stopped_namespaces if stopped else ()) or ("",):
                self.metrics.sweep_stopped.labels(str(reason), namespace).set(stopped)
        self.metrics.artifacts_lost.set(len(report.lost_artifacts))

    async def _watch_problems(self) -> None:
        """Show and report problems, and act on namespaces and the CRD when they appear or disappear."""
        reporter = ProblemReporter(self._installation, self._events)
        complete = self._view.complete_namespaces()
        plurals: set[str] = set()
        while True:
            try:
                if self._view.is_crd_missing:
                    # By the next attempt the CRD may exist again while its Classifiers are not restored yet.
                    self._deletions.give_up()
                before, complete = complete, self._view.complete_namespaces()
                if complete - before:
                    # Nothing was reconciled in them while they were forbidden.
                    self._add_all()
                counts = Counter(item.reference.resource.plural for item in self._view.unreadable())
                plurals |= counts.keys()
                for plural in plurals:
                    self.metrics.unreadable_objects.labels(plural).set(counts[plural])
                forbidden = self._view.forbidden_namespaces()
                for namespace in self._config.namespaces:
                    self.metrics.namespace_forbidden.labels(namespace).set(namespace in forbidden)
                await reporter.report(find_problems(self._view, self._sweep_message))
            except Exception:
                logger.exception("problems could not be reported")
            await asyncio.sleep(PROBLEMS_SECONDS)
