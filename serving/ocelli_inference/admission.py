"""How much the server takes on: images and bytes, counted from the first byte of a body to its answer.

A server that queues without bound dies of memory under load and answers late before it does. This one refuses, so that the
caller can ask another Pod.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType

from ocelli_inference.metrics import Metrics


class QueueFullError(Exception):
    """Taking on more would exceed the limits."""


@dataclass(frozen=True, kw_only=True)
class AdmissionLimits:
    """What may be in the server at a time. The bytes are those of image files as they came, not of decoded pixels."""

    images: int = 128
    bytes: int = 64 * 1024 * 1024


class Admission:
    """Counts what is in the server. Belongs to the event loop's thread."""

    def __init__(self, limits: AdmissionLimits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._images = 0
        self._bytes = 0

    @property
    def limits(self) -> AdmissionLimits:
        return self._limits

    def open_ticket(self) -> Ticket:
        """A request's share of the limits, to be used as a context manager: it is returned at the end.

        Raises:
            QueueFullError: so many images wait already that reading a body would be in vain.
        """
        if self._images >= self._limits.images:
            raise QueueFullError(f"the queue is full: {self._images} images wait; try again in a second")
        return Ticket(self)

    def take(self, *, images: int, size_bytes: int) -> None:
        """Raises QueueFullError where a limit would be exceeded; then nothing is taken."""
        if self._images + images > self._limits.images:
            raise QueueFullError(f"the queue is full: {self._images} images wait; try again in a second")
        if self._bytes + size_bytes > self._limits.bytes:
            raise QueueFullError(f"the queue is full: {self._bytes} bytes of images wait; try again in a second")
        self._change(images, size_bytes)

    def give_back(self, *, images: int, size_bytes: int) -> None:
        self._change(-images, -size_bytes)

    def _change(self, images: int, size_bytes: int) -> None:
        self._images += images
        self._bytes += size_bytes
        self._metrics.queued_images.set(self._images)
        self._metrics.queued_bytes.set(self._bytes)


class Ticket:
    """What one request holds of the limits."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._images = 0
        self._bytes = 0

    def add_bytes(self, count: int) -> None:
        """Count bytes that are kept in memory for this request. Raises QueueFullError."""
        self._admission.take(images=0, size_bytes=count)
        self._bytes += count

    def add_images(self, count: int) -> None:
        """Count images that are about to be queued. Raises QueueFullError."""
        self._admission.take(images=count, size_bytes=0)
        self._images += count

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._admission.give_back(images=self._images, size_bytes=self._bytes)
        self._images = self._bytes = 0
