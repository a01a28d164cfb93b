"""What the routes share: the predictor once there is one, and whether the server asks for new predictions.

Two questions that a Pod's life keeps apart. *Ready* asks for traffic: true from the first real prediction to the signal that
ends the process. *Serving* answers what comes: it goes on through the drain, because callers learn of the end a moment late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ocelli_api.pods import INFERENCE_DRAIN_SECONDS
from ocelli_inference.admission import Admission
from ocelli_inference.metrics import Metrics
from ocelli_inference.predictor import Predictor


class NotReadyError(Exception):
    """The revision is not loaded yet, or the process is about to end."""


@dataclass(frozen=True, kw_only=True)
class DrainRules:
    """How long a server that was told to stop still answers."""

    quiet_seconds: float = 3.0
    """It stops after so long without a new request: gateways and kube-proxies take a moment to look elsewhere."""
    limit_seconds: float = INFERENCE_DRAIN_SECONDS
    """It stops after so long in any case."""


class InferenceService:
    """The state of one inference server. Belongs to the event loop's thread."""

    def __init__(
        self,
        *,
        classifier_id: str,
        revision: str,
        admission: Admission,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.classifier_id = classifier_id
        self.revision = revision
        self.admission = admission
        self.metrics = metrics
        self._clock = clock
        self._predictor: Predictor | None = None
        self._draining = False
        self._in_flight = 0
        self._last_request_at = clock()

    @property
    def ready(self) -> bool:
        return self._predictor is not None and not self._draining

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def predictor(self) -> Predictor:
        """Raises NotReadyError while there is none."""
        if self._predictor is None:
            raise NotReadyError("the server is ending" if self._draining else "the revision is not loaded yet")
        return self._predictor

    def begin_serving(self, predictor: Predictor) -> None:
        """The predictor has answered a real prediction: ask for traffic."""
        self._predictor = predictor
        self.metrics.info.labels(self.classifier_id, self.revision, predictor.engine_name).set(1)
        self.metrics.ready.set(int(self.ready))

    def end_serving(self) -> None:
        self._predictor = None
        self.metrics.ready.set(0)

    async def drain(self, rules: DrainRules) -> None:
        """Stop asking for traffic, and return once none comes any more."""
        self._draining = True
        self.metrics.ready.set(0)
        begun = self._last_request_at = self._clock()
        while self._predictor is not None and self._clock() - begun < rules.limit_seconds:
            if not self._in_flight and self._clock() - self._last_request_at >= rules.quiet_seconds:
                return
            await asyncio.sleep(0.05)

    @contextmanager
    def count_request(self) -> Iterator[None]:
        """Counts a request from its headers to the end of its answer."""
        self._in_flight += 1
        self._last_request_at = self._clock()
        try:
            yield
        finally:
            self._in_flight -= 1
