"""The process: binds, loads, serves, drains. The composition root of the inference server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import time
from types import FrameType

import uvicorn

from ocelli_api.pods import INFERENCE_IDLE_SECONDS, INFERENCE_LAST_ANSWERS_SECONDS, INFERENCE_PORT, INTERNAL_PORT
from ocelli_api.prediction import CONNECTIONS_LIMIT
from ocelli_http.internal_server import internal_server
from ocelli_http.server import Server, bind, build_config
from ocelli_inference.admission import Admission, AdmissionLimits
from ocelli_inference.app import build_app, build_internal_app
from ocelli_inference.http_protocol import InferenceProtocol
from ocelli_inference.loading import open_predictor
from ocelli_inference.metrics import Metrics
from ocelli_inference.service import DrainRules, InferenceService
from ocelli_inference.settings import InferenceSettings

_log = logging.getLogger(__name__)


async def run_server(settings: InferenceSettings) -> None:
    """Serve until a signal arrives and the drain is over.

    Raises:
        BindError, LoadError: the server could not start.
    """
    metrics = Metrics()
    service = InferenceService(
        classifier_id=settings.classifier_id,
        revision=settings.revision,
        admission=Admission(AdmissionLimits(), metrics),
        metrics=metrics,
    )
    listener = bind(settings.bind_address, INFERENCE_PORT)
    config = build_config(
        build_app(service),
        http=InferenceProtocol,
        limit_concurrency=CONNECTIONS_LIMIT,
        timeout_graceful_shutdown=INFERENCE_LAST_ANSWERS_SECONDS,
    )
    server = _DrainingServer(config, service, DrainRules())
    # Probes are answered while the revision loads: alive, but not ready.
    async with internal_server(build_internal_app(service), settings.bind_address, INTERNAL_PORT):
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="serving")
        loading = asyncio.create_task(_load_and_serve(settings, service, serving), name="loading")
        try:
            await asyncio.wait({serving, loading}, return_when=asyncio.FIRST_COMPLETED)
            loading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await loading
        finally:
            server.should_exit = True
            await serving


async def _load_and_serve(settings: InferenceSettings, service: InferenceService, serving: asyncio.Task[None]) -> None:
    started = time.monotonic()
    async with open_predictor(settings, service.metrics) as predictor:
        load_seconds = time.monotonic() - started
        service.metrics.load_seconds.set(load_seconds)
        service.begin_serving(predictor)
        _log.info(
            "ready",
            extra={
                "classifier": settings.classifier,
                "classifier_id": settings.classifier_id,
                "revision": settings.revision,
                "engine": predictor.engine_name,
                "cpu_count": settings.cpu_count,
                "load_seconds": round(load_seconds, 3),
                "memory_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            },
        )
        try:
            await asyncio.shield(serving)
        finally:
            service.end_serving()


class _DrainingServer(Server):
    """A signal begins a drain; uvicorn's own handler would stop accepting requests immediately."""

    def __init__(self, config: uvicorn.Config, service: InferenceService, rules: DrainRules) -> None:
        super().__init__(config, drain_seconds=INFERENCE_IDLE_SECONDS)
        self._service = service
        self._rules = rules
        self._drain: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._drain is None:
            _log.info("draining", extra={"signal": signal.Signals(sig).name})
            self._drain = asyncio.create_task(self._drain_and_exit(), name="drain")
        elif sig == signal.SIGINT:
            self.should_exit = self.force_exit = True

    async def _drain_and_exit(self) -> None:
        await self._service.drain(self._rules)
        self.should_exit = True
