"""Limits on the load of the server: images and bytes, counted from the first byte of a body to its answer.

A server with an unlimited queue gets slow under load, and then runs out of memory. This one refuses requests, so that the
caller can try another Pod.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ocelli_inference.metrics import Metrics


class QueueFullError(Exception):
    """The request would exceed the limits."""


@dataclass(frozen=True, kw_only=True)
class AdmissionLimits:
    """The maximum load. Bytes are those of image files, not of decoded pixels."""

    images: int = 128
    bytes: int = 64 * 1024 * 1024


class Admission:
    """Counts images and bytes in the server. Belongs to the event loop's thread."""

    def __init__(self, limits: AdmissionLimits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._images = 0
        self._bytes = 0

    @contextmanager
    def open_ticket(self) -> Iterator[Ticket]:
        """A request's share of the limits, which is released at the end.

        Raises:
            QueueFullError: the queue is full, so the body need not be read.
        """
        self._check_images(1)
        ticket = Ticket(admission=self)
        try:
            yield ticket
        finally:
            self.change(images=-ticket.images, size_bytes=-ticket.size_bytes)

    def change(self, *, images: int = 0, size_bytes: int = 0) -> None:
        """Raises QueueFullError if a limit would be exceeded; then nothing is counted."""
        if images > 0:
            self._check_images(images)
        if size_bytes > 0 and self._bytes + size_bytes > self._limits.bytes:
            raise QueueFullError(f"the queue is full: {self._bytes} bytes of images are waiting; try again in a second")
        self._images += images
        self._bytes += size_bytes
        self._metrics.queued_images.set(self._images)
        self._metrics.queued_bytes.set(self._bytes)

    def _check_images(self, count: int) -> None:
        if self._images + count > self._limits.images:
            raise QueueFullError(f"the queue is full: {self._images} images are waiting; try again in a second")


@dataclass(kw_only=True)
class Ticket:
    """One request's share of the limits."""

    admission: Admission
    images: int = 0
    size_bytes: int = 0

    def add_bytes(self, count: int) -> None:
        """Count bytes that this request holds in memory. Raises QueueFullError."""
        self.admission.change(size_bytes=count)
        self.size_bytes += count

    def add_images(self, count: int) -> None:
        """Count images that will be queued. Raises QueueFullError."""
        self.admission.change(images=count)
        self.images += count
