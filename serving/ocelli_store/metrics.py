"""The Prometheus metrics of the store, on their own registry."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge

from ocelli_http.metrics import build_registry


class Metrics:
    """All metrics."""

    def __init__(self, *, free_bytes: Callable[[], int], size_bytes: Callable[[], int]) -> None:
        self.registry = build_registry()
        self.requests = Counter(
            "ocelli_store_requests_total",
            "Answered requests by method and HTTP status.",
            ["method", "code"],
            registry=self.registry,
        )
        Gauge("ocelli_store_free_bytes", "Free bytes of the store's volume.", registry=self.registry).set_function(free_bytes)
        Gauge("ocelli_store_size_bytes", "Size of the store's volume.", registry=self.registry).set_function(size_bytes)
