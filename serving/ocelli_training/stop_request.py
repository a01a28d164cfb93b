"""Signals that end the trainer: at once, or, while a training can save where it is, after its next step."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StopRequest:
    """Whether Kubernetes has asked the trainer to end."""

    def __init__(self, end: Callable[[int], None]) -> None:
        """`end` ends the process because of a signal of that number."""
        self._end = end
        self._resumable = False
        self._requested: int | None = None

    def receive(self, number: int) -> None:
        """A signal has arrived. A second one, or any but SIGTERM, ends the process at once."""
        if self._resumable and self._requested is None and number == signal.SIGTERM:
            self._requested = number
            return
        self._end(number)

    @property
    def requested(self) -> bool:
        """Whether what is `resumable` should save its state and call `end`."""
        return self._requested is not None

    def end(self) -> None:
        """End the process now, if it was requested."""
        if self._requested is not None:
            self._end(self._requested)

    @contextmanager
    def resumable(self) -> Iterator[None]:
        """While this lasts, SIGTERM only sets `requested`."""
        self._resumable = True
        try:
            yield
        finally:
            self._resumable = False
            self.end()
