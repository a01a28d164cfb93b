"""The state that the routes share: the predictor, once it is loaded, and whether the server is ready.

*Ready* means that the server should get traffic: from the first real prediction to the signal that stops the process. It
answers longer than that, through the drain, because callers notice a moment late that it is no longer ready.
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
    """The revision is not loaded yet, or the process is stopping."""


@dataclass(frozen=True, kw_only=True)
class DrainRules:
    """How long a server still answers after the signal to stop."""

    quiet_seconds: float = 3.0
    """It stops after this time without a new request: gateways and kube-proxies take a moment to notice."""
    limit_seconds: float = INFERENCE_DRAIN_SECONDS
    """It stops after this time in any case."""


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
        self.draining = False
        self._in_flight = 0
        self._last_request_at = clock()

    @property
    def ready(self) -> bool:
        return self._predictor is not None and not self.draining

    @property
    def predictor(self) -> Predictor:
        """Raises NotReadyError if there is none."""
        if self._predictor is None:
            raise NotReadyError(
                "the server is stopping; use another server"
                if self.draining
                else "the revision is not loaded yet; try again in a moment"
            )
        return self._predictor

    def begin_serving(self, predictor: Predictor) -> None:
        """The predictor has made a real prediction: become ready."""
        self._predictor = predictor
        self.metrics.info.labels(self.classifier_id, self.revision, predictor.engine_name).set(1)
        self.metrics.ready.set(int(self.ready))

    def end_serving(self) -> None:
        self._predictor = None
        self.metrics.ready.set(0)

    async def drain(self, rules: DrainRules) -> None:
        """Stop being ready, and return when no more requests arrive."""
        self.draining = True
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
