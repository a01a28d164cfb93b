"""The Prometheus metrics of the gateway, on a registry of their own. Each is documented by its help text."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from ocelli_http.metrics import build_registry

_REQUEST_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 120.0)


class Metrics:
    """All metrics."""

    def __init__(self) -> None:
        self.registry = build_registry()
        self.requests = Counter(
            "ocelli_gateway_requests_total",
            "Answered requests by address (its pattern), method and HTTP status.",
            ["route", "method", "code"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "ocelli_gateway_request_duration_seconds",
            "Seconds from the request's headers to the end of its answer, its upload included.",
            ["route", "method"],
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self.predictions = Counter(
            "ocelli_gateway_predictions_total",
            "Calls to inference servers by outcome: Predicted, ImageFault, a refusal (OtherRevision, QueueFull, NotReady) or "
            "Unreachable.",
            ["outcome"],
            registry=self.registry,
        )
        self.prediction_seconds = Histogram(
            "ocelli_gateway_prediction_duration_seconds",
            "Seconds of one call to an inference server that answered with a prediction.",
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
