"""The Prometheus metrics of the store, on a registry of their own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """All metrics."""

    def __init__(self, *, free_bytes: Callable[[], int], size_bytes: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "ocelli_store_requests_total",
            "Answered requests by method and HTTP status.",
            ["method", "code"],
            registry=self.registry,
        )
        Gauge("ocelli_store_free_bytes", "Bytes that are left of the store's volume.", registry=self.registry).set_function(
            free_bytes
        )
        Gauge("ocelli_store_size_bytes", "Size of the store's volume.", registry=self.registry).set_function(size_bytes)

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)
