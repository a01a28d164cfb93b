"""The operator's Prometheus metrics. `docs/reference/operator-metrics.md` lists them."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from http.server import ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ocelli_api.classifier import Classifier
from ocelli_api.conditions import Condition, ConditionStatus, ConditionType, PromotedReason
from ocelli_api.lifecycle import Lifecycle, lifecycle

_HELD_REASONS = (
    PromotedReason.BELOW_MINIMUM_ACCURACY,
    PromotedReason.REGRESSED,
    PromotedReason.NOT_COMPARABLE,
    PromotedReason.AWAITING_APPROVAL,
)
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class OperatorMetrics:
    """Every metric, in its own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        self.reconciles = counter(
            "ocelli_reconciles",
            "Reconciles of a Classifier, by result: `unchanged` (nothing was written), `changed`, `waiting` (for a quota, for "
            "admission, or until a conflicting object is deleted), `conflict`, `error`.",
            ["result"],
        )
        self.reconcile_seconds = Histogram(
            "ocelli_reconcile_seconds", "Duration of a reconcile.", buckets=_BUCKETS, registry=self.registry
        )
        self.jobs_started = counter("ocelli_training_jobs_started", "Training Jobs created.")
        self.revisions_stalled = counter("ocelli_revisions_stalled", "Revisions that stalled, by reason.", ["reason"])
        self.writes = counter(
            "ocelli_api_writes",
            "Write requests to the API server, including Leases and Events, by method and resource.",
            ["method", "resource"],
        )
        self.status_refused = counter(
            "ocelli_status_refused",
            "Status writes that the API server rejected: these Classifiers show an outdated status.",
        )
        self.queue_length = gauge("ocelli_queue_length", "Classifiers waiting to be reconciled.")
        self.starts_in_progress = gauge(
            "ocelli_starts_in_progress",
            "Trainings and rollouts that are starting, by kind (`Training`, `Rollout`, `Upgrade`).",
            ["kind"],
        )
        self.starts_waiting = gauge(
            "ocelli_starts_waiting", "Trainings and rollouts that wait for a free start, by kind.", ["kind"]
        )
        self.trainings_running = gauge(
            "ocelli_trainings_running",
            "Trainings that run or are about to, which `OCELLI_TRAININGS_LIMIT` and `OCELLI_NAMESPACE_TRAININGS_LIMIT` limit.",
        )
        self.leader = gauge("ocelli_leader", "1 while this operator holds the Lease, else 0.")
        self.watch_age_seconds = gauge(
            "ocelli_watch_age_seconds", "Seconds since the most silent watch last received something from the API server."
        )
        self.store_reachable = gauge(
            "ocelli_store_reachable",
            "0 while Classifiers wait for an object store that does not answer this operator, else 1.",
        )
        self.reconcile_age_seconds = gauge(
            "ocelli_reconcile_age_seconds",
            "Seconds for which the longest current reconcile has been running; 0 if none is running.",
        )
        self.swept_objects = counter("ocelli_swept_objects", "Stored objects deleted because nothing refers to them.")
        self.sweep_stopped = gauge(
            "ocelli_sweep_stopped",
            "1 while the store is not swept, by reason: `OtherInstallation` (it belongs to another installation), "
            "`ShareExceeded` (nothing refers to so many objects of the tenant's namespace that Classifiers may be missing); "
            "else 0, with an empty `tenant_namespace`.",
            ["reason", "tenant_namespace"],
        )
        self.network_policies_blocked = gauge(
            "ocelli_network_policies_blocked",
            "Classifiers whose NetworkPolicy cannot be created or updated; existing inference servers continue to serve.",
        )
        self.artifacts_lost = gauge(
            "ocelli_artifacts_lost", "Classifiers whose served artifact is missing from the object store."
        )
        self.unreadable_objects = gauge(
            "ocelli_unreadable_objects",
            "Objects that this release cannot parse and leaves unchanged, by resource.",
            ["resource"],
        )
        self.crd_missing = gauge(
            "ocelli_crd_missing", "1 while the API server does not know `classifiers.ocelli.dev`: its CRD was deleted; else 0."
        )
        self.namespace_forbidden = gauge(
            "ocelli_namespace_forbidden",
            "1 if the operator has no right to read a namespace of `OCELLI_NAMESPACES`, because the namespace or its Role was "
            "deleted; else 0.",
            ["tenant_namespace"],
        )

    def observe_classifiers(self, classifiers: Callable[[], Iterable[Classifier]]) -> None:
        """Count Classifiers by lifecycle at each scrape."""
        self.registry.register(_ClassifierCollector(classifiers))

    def serve(self, address: str, port: int) -> ThreadingHTTPServer:
        """Serve `/metrics` in a thread until `shutdown()` is called."""
        server, _ = start_http_server(port, addr=address, registry=self.registry)
        return server  # type: ignore[return-value]


class _ClassifierCollector(Collector):
    """Counts all states of a scrape in one loop."""

    def __init__(self, classifiers: Callable[[], Iterable[Classifier]]) -> None:
        self._classifiers = classifiers

    def collect(self) -> Iterable[Metric]:
        classifiers = tuple(self._classifiers())
        counts = Tally(lifecycle(classifier) for classifier in classifiers)
        states = GaugeMetricFamily("ocelli_classifiers", "Classifiers by v3 status.", labels=["lifecycle"])
        for state in Lifecycle:
            states.add_metric([str(state)], counts[state])
        yield states
        reasons = Tally(promoted.reason for promoted in map(_find_held, classifiers) if promoted is not None)
        held = GaugeMetricFamily(
            "ocelli_revisions_held",
            "Trained revisions that do not serve because of `spec.promotion`, by reason of the condition `Promoted`.",
            labels=["reason"],
        )
        for reason in _HELD_REASONS:
            held.add_metric([str(reason)], reasons[str(reason)])
        yield held
        yield from _describe_trainings(classifiers)


def _describe_trainings(classifiers: Iterable[Classifier]) -> Iterator[Metric]:
    """The progress of running trainings: as many series as there are trainings."""
    labels = ["tenant_namespace", "classifier"]
    percent = GaugeMetricFamily(
        "ocelli_training_progress_percent",
        "Percentage of a running training that is done, at most ten seconds old.",
        labels=[*labels, "stage", "device"],
    )
    accuracy = GaugeMetricFamily(
        "ocelli_training_accuracy", "Accuracy of the revision in training, from 0 to 1, once it is evaluated.", labels=labels
    )
    completion = GaugeMetricFamily(
        "ocelli_training_completion_timestamp_seconds", "When a running training is expected to end.", labels=labels
    )
    tuned = [*labels, "network"]
    epoch = GaugeMetricFamily(
        "ocelli_training_epoch", "The epoch that fine-tuning is in, from 1, by number of the network in training.", labels=tuned
    )
    loss = GaugeMetricFamily(
        "ocelli_training_loss", "Loss of the last step of fine-tuning, by number of the network in training.", labels=tuned
    )
    for classifier in classifiers:
        progress, names = classifier.status.progress, [classifier.namespace, classifier.name]
        if progress is None:
            continue
        percent.add_metric([*names, progress.stage, progress.device or ""], progress.percent)
        if progress.accuracy is not None:
            accuracy.add_metric(names, float(progress.accuracy))
        if progress.estimated_completion is not None:
            completion.add_metric(names, datetime.fromisoformat(progress.estimated_completion).timestamp())
        if progress.fine_tuning is not None:
            network = str(progress.fine_tuning.network)
            epoch.add_metric([*names, network], progress.fine_tuning.epoch)
            loss.add_metric([*names, network], float(progress.fine_tuning.loss))
    yield from (percent, accuracy, completion, epoch, loss)


def _find_held(classifier: Classifier) -> Condition | None:
    """`Promoted` where it keeps a revision from serving."""
    promoted = classifier.status.condition(ConditionType.PROMOTED)
    return None if promoted is None or promoted.status is ConditionStatus.TRUE else promoted
