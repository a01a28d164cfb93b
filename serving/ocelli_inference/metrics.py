"""The Prometheus metrics of an inference server. Each is documented by its help text."""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import Counter, Gauge, Histogram

from ocelli_http.metrics import build_registry

_LATENCY_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 10.0)
_SIZE_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_STEP_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class RequestOutcome(StrEnum):
    """How a request ended, in addition to the faults and refusals of the prediction call."""

    PREDICTED = "Predicted"
    INVALID_REQUEST = "InvalidRequest"
    """It is not a request of the Open Inference Protocol."""
    CLIENT_GONE = "ClientGone"
    """The client has disconnected."""
    INTERNAL_ERROR = "InternalError"


class Metrics:
    """All metrics, on their own registry."""

    def __init__(self) -> None:
        self.registry = build_registry()
        self.info = Gauge(
            "ocelli_inference_info",
            "Always 1; the labels name what is served.",
            ["classifier_id", "revision", "engine"],
            registry=self.registry,
        )
        self.ready = Gauge("ocelli_inference_ready", "1 while the server accepts new traffic, else 0.", registry=self.registry)
        self.load_seconds = Gauge(
            "ocelli_inference_load_seconds",
            "Seconds to load the revision and to make its first prediction, the warm-up.",
            registry=self.registry,
        )
        self.requests = Counter(
            "ocelli_inference_requests_total",
            "Finished prediction requests by outcome: Predicted, a fault of the image (NotAnImage, Corrupt, TooSmall, "
            "TooManyPixels, TooLarge), a refusal (OtherRevision, QueueFull, NotReady), InvalidRequest, ClientGone or "
            "InternalError.",
            ["outcome"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "ocelli_inference_request_duration_seconds",
            "Seconds from the request's headers to its answer, of answered (Predicted) requests.",
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.decode_seconds = Histogram(
            "ocelli_inference_decode_duration_seconds",
            "Seconds to decode and resize one image, without the time that it waits.",
            buckets=_STEP_BUCKETS,
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "ocelli_inference_batch_duration_seconds",
            "Seconds that the backbone takes for one batch.",
            buckets=_STEP_BUCKETS,
            registry=self.registry,
        )
        self.batch_images = Histogram(
            "ocelli_inference_batch_images",
            "Images in one batch.",
            buckets=_SIZE_BUCKETS,
            registry=self.registry,
        )
        self.queued_images = Gauge(
            "ocelli_inference_queued_images",
            "Images in the server: being decoded, waiting, or in the running batch.",
            registry=self.registry,
        )
        self.queued_bytes = Gauge(
            "ocelli_inference_queued_bytes",
            "Bytes of image files held in memory for requests.",
            registry=self.registry,
        )
