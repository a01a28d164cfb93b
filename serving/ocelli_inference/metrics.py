"""The Prometheus metrics of an inference server. Each is documented by its help text."""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST

_LATENCY_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0, 10.0)
_SIZE_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
_STEP_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class RequestOutcome(StrEnum):
    """How a request ended, beside the faults and refusals of the prediction call."""

    PREDICTED = "Predicted"
    INVALID_REQUEST = "InvalidRequest"
    """It is no request of the Open Inference Protocol."""
    CLIENT_GONE = "ClientGone"
    """Nobody waits for the answer any more."""
    INTERNAL_ERROR = "InternalError"


class Metrics:
    """All metrics, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.info = Gauge(
            "ocelli_inference_info",
            "Constant 1, labelled with what is served.",
            ["classifier_id", "revision", "engine"],
            registry=self.registry,
        )
        self.ready = Gauge(
            "ocelli_inference_ready", "1 while the server asks for new predictions, else 0.", registry=self.registry
        )
        self.load_seconds = Gauge(
            "ocelli_inference_load_seconds",
            "Seconds that loading the revision and its first prediction, the one of the warm-up, took.",
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
            "Seconds to decode and resize one image, without waiting.",
            buckets=_STEP_BUCKETS,
            registry=self.registry,
        )
        self.batch_seconds = Histogram(
            "ocelli_inference_batch_duration_seconds",
            "Seconds that the backbone took for one batch.",
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
            "Images that are in the server: being decoded, waiting, or in the batch that runs.",
            registry=self.registry,
        )
        self.queued_bytes = Gauge(
            "ocelli_inference_queued_bytes",
            "Bytes of image files that are held for requests.",
            registry=self.registry,
        )

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)
