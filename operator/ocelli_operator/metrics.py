"""The operator's Prometheus metrics. `docs/reference/operator-metrics.md` lists them."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable
from http.server import ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ocelli_api.classifier import Classifier
from ocelli_api.lifecycle import Lifecycle, lifecycle

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class OperatorMetrics:
    """Counts of what the operator did, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "ocelli_reconciles",
            "Passes over a Classifier, by result: `unchanged` (nothing was written), `changed`, `waiting` (for a quota, for "
            "admission, or for an object to go that is in the way), `conflict`, `error`.",
            ["result"],
            registry=self.registry,
        )
        self.reconcile_seconds = Histogram(
            "ocelli_reconcile_seconds", "Duration of a pass.", buckets=_BUCKETS, registry=self.registry
        )
        self.jobs_started = Counter("ocelli_training_jobs_started", "Training Jobs created.", registry=self.registry)
        self.revisions_stalled = Counter(
            "ocelli_revisions_stalled", "Revisions that stalled, by reason.", ["reason"], registry=self.registry
        )
        self.writes = Counter(
            "ocelli_api_writes",
            "Requests that write, sent to the API server, by method and kind (leases and events included).",
            ["method", "resource"],
            registry=self.registry,
        )
        self.status_refused = Counter(
            "ocelli_status_refused",
            "Writes of a status that the API server refused: what these Classifiers show is out of date.",
            registry=self.registry,
        )
        self.queue_length = Gauge("ocelli_queue_length", "Classifiers that wait for a pass.", registry=self.registry)
        self.starts_in_progress = Gauge(
            "ocelli_starts_in_progress",
            "Trainings and rollouts that are starting, by kind (`Training`, `Rollout`, `Upgrade`).",
            ["kind"],
            registry=self.registry,
        )
        self.starts_waiting = Gauge(
            "ocelli_starts_waiting",
            "Trainings and rollouts that wait for their turn, by kind.",
            ["kind"],
            registry=self.registry,
        )
        self.leader = Gauge("ocelli_leader", "1 while this operator holds the Lease, else 0.", registry=self.registry)
        self.watch_age_seconds = Gauge(
            "ocelli_watch_age_seconds",
            "The longest time for which one of the watches has heard nothing of the API server.",
            registry=self.registry,
        )
        self.store_reachable = Gauge(
            "ocelli_store_reachable",
            "0 while Classifiers wait for an object store that does not answer this operator, else 1.",
            registry=self.registry,
        )
        self.reconcile_age_seconds = Gauge(
            "ocelli_reconcile_age_seconds",
            "For how long the oldest pass that has not ended has been under way; 0 where there is none.",
            registry=self.registry,
        )
        self.swept_objects = Counter(
            "ocelli_swept_objects", "Stored objects deleted because nothing refers to them.", registry=self.registry
        )
        self.sweep_stopped = Gauge(
            "ocelli_sweep_stopped",
            "1 while the store is not swept, by reason: `OtherInstallation` (it belongs to another installation), "
            "`ShareExceeded` (nothing refers to so much of what is stored for the tenant's namespace that something may be "
            "wrong); else 0, with an empty `tenant_namespace`.",
            ["reason", "tenant_namespace"],
            registry=self.registry,
        )
        self.network_policies_blocked = Gauge(
            "ocelli_network_policies_blocked",
            "Classifiers whose NetworkPolicy cannot be made, or changed, as it should be: what serves already goes on.",
            registry=self.registry,
        )
        self.artifacts_lost = Gauge(
            "ocelli_artifacts_lost",
            "Classifiers whose served artifact is not in the store any more.",
            registry=self.registry,
        )
        self.unreadable_objects = Gauge(
            "ocelli_unreadable_objects",
            "Objects that this release cannot read, by kind; they are left as they are.",
            ["resource"],
            registry=self.registry,
        )
        self.crd_missing = Gauge(
            "ocelli_crd_missing",
            "1 while the API server does not know the resource `classifiers.ocelli.dev`, because its definition (CRD) was "
            "deleted, else 0.",
            registry=self.registry,
        )
        self.namespace_forbidden = Gauge(
            "ocelli_namespace_forbidden",
            "1 where a namespace of `OCELLI_NAMESPACES` may not be read, because it or its Role is gone; else 0.",
            ["tenant_namespace"],
            registry=self.registry,
        )

    def observe_classifiers(self, classifiers: Callable[[], Iterable[Classifier]]) -> None:
        """Count Classifiers by lifecycle at each scrape."""
        self.registry.register(_ClassifierCollector(classifiers))

    def serve(self, address: str, port: int) -> ThreadingHTTPServer:
        """Serve `/metrics` from a thread; `shutdown()` ends it."""
        server, _ = start_http_server(port, addr=address, registry=self.registry)
        return server  # type: ignore[return-value]


class _ClassifierCollector(Collector):
    def __init__(self, classifiers: Callable[[], Iterable[Classifier]]) -> None:
        self._classifiers = classifiers

    def collect(self) -> Iterable[Metric]:
        counts = Tally(lifecycle(classifier) for classifier in self._classifiers())
        family = GaugeMetricFamily("ocelli_classifiers", "Classifiers by v3 status.", labels=["lifecycle"])
        for state in Lifecycle:
            family.add_metric([str(state)], counts[state])
        yield family
